"""The kernels of coders' tables against a plain Python twin that handles strings of bits."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowerpress.compression.coders.table import read_levels, write_levels
from flowerpress.compression.errors import FormatError, TruncatedError, WireError
from flowerpress.compression.kernels import tables as kernels


class _Bits:
    """Bits in order, least significant first, as one integer under construction."""

    def __init__(self) -> None:
        self._parts: list[str] = []

    def put(self, value: int, size: int) -> None:
        if size:
            self._parts.append(format(value, f"0{size}b")[::-1])

    def unary(self, value: int) -> None:
        self._parts.append("1" * value + "0")

    def gamma(self, value: int) -> None:
        size = (value + 1).bit_length() - 1
        self.unary(size)
        self.put(value + 1 - (1 << size), size)

    def getvalue(self) -> tuple[bytes, int]:
        text = "".join(self._parts)
        size = len(text)
        return int(text[::-1], 2).to_bytes((size + 7) // 8, "little"), size


class _BitReader:
    """The same in reverse, from hostile bytes."""

    def __init__(self, data: memoryview, field: str) -> None:
        self._text = format(int.from_bytes(data, "little") | 1 << 8 * len(data), "b")[:0:-1]
        self._field = field
        self.at = 0

    def get(self, size: int) -> int:
        if size == 0:
            return 0
        bits = self._text[self.at : self.at + size]
        if len(bits) < size:
            raise TruncatedError(self._field, "ends inside its table")
        self.at += size
        return int(bits[::-1], 2)

    def unary(self, largest: int) -> int:
        end = self._text.find("0", self.at, self.at + largest + 1)
        if end < 0:
            if self.at + largest + 1 > len(self._text):
                raise TruncatedError(self._field, "ends inside its table")
            raise FormatError(self._field, "has a table with an impossible step")
        value = end - self.at
        self.at = end + 1
        return value

    def gamma(self, largest: int) -> int:
        size = self.unary((largest + 1).bit_length() - 1)
        value = (1 << size) + self.get(size) - 1
        if value > largest:
            raise FormatError(self._field, "has a table that runs past its end")
        return value


def twin_write(levels: Sequence[int], extras: Sequence[int], kept: int) -> tuple[bytes, int]:
    """Return the bytes of a table and its size in bits.

    ``extras[i]`` holds the ``min(kept, level - 1)`` bits of token i. At least one level is above 0.
    """
    tokens = len(levels)
    first = next(i for i, level in enumerate(levels) if level)
    last = next(i for i in range(tokens - 1, -1, -1) if levels[i])
    out = _Bits()
    width = (tokens - 1).bit_length()
    gammas = 2 * ((first + 1).bit_length() + (tokens - last).bit_length()) - 2
    if gammas <= 2 * width:
        out.put(0, 1)
        out.gamma(first)
        out.gamma(tokens - 1 - last)
    else:
        out.put(1, 1)
        out.put(first, width)
        out.put(last, width)
    before = -1
    zeros = 0
    at = first
    while at <= last:
        if zeros == 2:
            run = next(i for i in range(at, last + 1) if levels[i]) - at
            out.gamma(run)
            at += run
            zeros = 0
        level = levels[at]
        if before < 0:
            out.put(level, 4)
        else:
            out.unary(abs(level - before))
            if level != before and before > 0:
                out.put(int(level < before), 1)
        if level:
            out.put(extras[at], min(kept, level - 1))
        zeros = 0 if level else zeros + 1
        before = level
        at += 1
    return out.getvalue()


def twin_read(
    data: memoryview, tokens: int, kept: int, field: str
) -> tuple[list[int], list[int], int]:
    """Read what :func:`twin_write` wrote at the start of ``data``.

    Returns levels and extras of all ``tokens`` tokens and the number of bytes that they took.
    """
    source = _BitReader(data[: tokens * 64 // 8 + 16], field)
    width = (tokens - 1).bit_length()
    if source.get(1):
        first = source.get(width)
        last = source.get(width)
    else:
        first = source.gamma(tokens - 1)
        last = tokens - 1 - source.gamma(tokens - 1)
    if not first <= last < tokens:
        raise FormatError(field, f"has a table for tokens {first} to {last} of {tokens}")
    found = [0] * tokens
    extras = [0] * tokens
    before = -1
    zeros = 0
    at = first
    while at <= last:
        if zeros == 2:
            at += source.gamma(last - at)
            zeros = 0
        if before < 0:
            level = source.get(4)
        else:
            step = source.unary(kernels.LARGEST)
            level = before - step if step and before and source.get(1) else before + step
        if not 0 <= level <= kernels.LARGEST:
            raise FormatError(field, f"has a table with level {level}")
        found[at] = level
        extras[at] = source.get(min(kept, level - 1)) if level else 0
        zeros = 0 if level else zeros + 1
        before = level
        at += 1
    if not found[first] or not found[last]:
        raise FormatError(field, "has a table whose first or last token does not occur")
    return found, extras, (source.at + 7) // 8


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[int], list[int], int]:
    """Levels, smooth or not, with some above 0; what is kept of each; and the kept bits."""
    tokens = draw(st.integers(2, 300))
    rng = random.Random(draw(st.integers(0, 2**32)))
    absent = draw(st.sampled_from([0.0, 0.3, 0.95]))
    smooth = draw(st.booleans())
    levels, level = [], rng.randint(1, 13)
    for _ in range(tokens):
        level = min(15, max(1, level + rng.randint(-1, 1) if smooth else rng.randint(1, 15)))
        levels.append(0 if rng.random() < absent else level)
    levels[rng.randrange(tokens)] = level
    kept = draw(st.sampled_from([0, 1, 2, 3, 4, 6, 8, 11, 14]))
    extras = [rng.getrandbits(min(kept, each - 1)) if each > 1 and kept else 0 for each in levels]
    return levels, extras, kept


def written(levels: Sequence[int], extras: Sequence[int], kept: int) -> bytes:
    return write_levels(np.array(levels, np.int64), np.array(extras, np.int64), kept)


@settings(deadline=None)
@given(tables())
def test_tables_are_written_and_read_as_by_the_twin(
    table: tuple[list[int], list[int], int],
) -> None:
    levels, extras, kept = table
    body = written(levels, extras, kept)
    assert body == twin_write(levels, extras, kept)[0]
    found = read_levels(memoryview(body + b"more"), len(levels), kept, "table")
    assert [each.tolist() for each in found[:2]] == [levels, extras]
    assert found[2] == len(body)


def ends(read: object, body: bytes, tokens: int, kept: int) -> object:
    assert callable(read)
    try:
        levels, extras, size = read(memoryview(body), tokens, kept, "table")
    except WireError as error:
        return type(error)
    return list(map(int, levels)), list(map(int, extras)), size


@settings(deadline=None)
@given(tables(), st.randoms(use_true_random=False), st.booleans())
def test_damaged_tables_end_as_with_the_twin(
    table: tuple[list[int], list[int], int], rng: random.Random, noise: bool
) -> None:
    levels, extras, kept = table
    for _ in range(20):
        body = bytearray(written(levels, extras, kept))
        if noise:
            body = bytearray(rng.randbytes(len(body)))
        elif rng.random() < 0.5:
            del body[rng.randrange(len(body)) :]
        else:
            body[rng.randrange(len(body))] ^= 1 << rng.randrange(8)
        given = (bytes(body), len(levels), kept)
        assert ends(read_levels, *given) == ends(twin_read, *given)


@pytest.mark.parametrize(
    ("bits", "error", "match"),
    [
        ("", TruncatedError, "ends inside"),
        ("0" + "1" * 40, FormatError, "impossible step"),
        ("0" + "110" + "11" + "0", FormatError, "past its end"),
        ("1" + "11" + "10", FormatError, "before its first"),
        ("1" + "00" + "11" + "0000" + "0" * 8, FormatError, "does not occur"),
    ],
)
def test_what_is_wrong_with_a_table_is_said(bits: str, error: type[Exception], match: str) -> None:
    body = int(bits[::-1] or "0", 2).to_bytes((len(bits) + 7) // 8, "little")
    with pytest.raises(error, match=match):
        read_levels(memoryview(body), 4, 0, "table")
