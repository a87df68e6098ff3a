"""Tables of small levels, written in few bits: frequencies of rANS, code lengths of Huffman.

A level is a number from 0 (token absent) to 15. In a smooth distribution neighbours have nearly
the same level, so levels are written as differences, at one to three bits a token:

    range     1 bit: 0 = first token and distance of the last from the end in Elias gamma codes,
              1 = first and last token at fixed width; both tokens occur
    first     4 bits
    others    unary |difference|, then its sign (none when the level before is 0: it must rise);
              after two zeros, the number of further zeros in an Elias gamma code comes first
    extra     behind every level above 0: min(kept, level - 1) bits below its leading bit

Unary is ones ended by a zero; an Elias gamma code of n is the unary length of n + 1 less one,
then its bits below the leading one (P. Elias, "Universal codeword sets", 1975).
"""

from __future__ import annotations

from collections.abc import Sequence

from flowerpress.compression.errors import FormatError, TruncatedError

__all__ = ["LARGEST_LEVEL", "read_levels", "write_levels"]

LARGEST_LEVEL = 15
# Bits that no token exceeds: a difference of 15, its sign, 14 extra bits and a run of zeros.
_LARGEST_ENTRY = 64


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


def write_levels(levels: Sequence[int], extras: Sequence[int], kept: int) -> tuple[bytes, int]:
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


def read_levels(
    data: memoryview, tokens: int, kept: int, field: str
) -> tuple[list[int], list[int], int]:
    """Read what :func:`write_levels` wrote at the start of ``data``.

    Returns levels and extras of all ``tokens`` tokens and the number of bytes that they took.
    """
    source = _BitReader(data[: tokens * _LARGEST_ENTRY // 8 + 16], field)
    width = (tokens - 1).bit_length()
    if source.get(1):
        first = source.get(width)
        last = source.get(width)
    else:
        first = source.gamma(tokens - 1)
        last = tokens - 1 - source.gamma(tokens - 1)
    if not first <= last < tokens:
        raise FormatError(field, f"has a table for tokens {first} to {last} of {tokens}")
    levels = [0] * tokens
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
            step = source.unary(LARGEST_LEVEL)
            level = before - step if step and before and source.get(1) else before + step
        if not 0 <= level <= LARGEST_LEVEL:
            raise FormatError(field, f"has a table with level {level}")
        levels[at] = level
        extras[at] = source.get(min(kept, level - 1)) if level else 0
        zeros = 0 if level else zeros + 1
        before = level
        at += 1
    if not levels[first] or not levels[last]:
        raise FormatError(field, "has a table whose first or last token does not occur")
    return levels, extras, (source.at + 7) // 8
