"""Bit kernels against strings of zeros and ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from flowerpress.compression.kernels import STATUS_OK, STATUS_RANGE, STATUS_TRUNCATED, bits, golomb
from flowerpress.compression.kernels.words import new_words, words_from_bytes, words_to_bytes

QUICK = settings(deadline=None, max_examples=100)


def as_text(words: NDArray[np.uint32], size: int) -> str:
    data = words_to_bytes(words, size)
    assert len(data) == (size + 7) // 8
    return "".join(format(byte, "08b")[::-1] for byte in data)[:size]


def low_first(value: int, size: int) -> str:
    return format(value, f"0{size}b")[::-1] if size else ""


def golomb_text(value: int, divisor: int) -> str:
    """The textbook code, with the remainder's bits in the order of the stream."""
    quotient, remainder = divmod(value, divisor)
    width = (divisor - 1).bit_length()
    short = (1 << width) - divisor
    text = "1" * quotient + "0"
    if remainder < short:
        return text + low_first(remainder, max(0, width - 1))
    if width == 0:
        return text
    high = remainder + short
    return text + low_first(high >> 1, width - 1) + str(high & 1)


@QUICK
@given(
    st.integers(1, 32).flatmap(
        lambda width: st.tuples(
            st.just(width), st.lists(st.integers(0, 2**width - 1), max_size=100)
        )
    )
)
def test_fixed_width(case: tuple[int, list[int]]) -> None:
    width, values = case
    words = new_words(width * len(values))
    bits.pack(np.array(values, dtype=np.uint32), width, words)
    text = as_text(words, width * len(values))
    assert text == "".join(low_first(value, width) for value in values)
    out = np.zeros(len(values), dtype=np.uint32)
    bits.unpack(words_from_bytes(words_to_bytes(words, len(text))), width, out)
    assert out.tolist() == values


@QUICK
@given(
    st.lists(st.integers(0, 2000), max_size=60),
    st.one_of(st.integers(1, 70), st.sampled_from([2**16, 2**31, 2**31 + 1, 2**32 - 1])),
)
def test_golomb_is_the_textbook_code(values: list[int], divisor: int) -> None:
    array = np.array(values, dtype=np.uint32)
    size = int(golomb.size(array, divisor))
    expected = "".join(golomb_text(value, divisor) for value in values)
    assert size == len(expected)
    words = new_words(size)
    golomb.encode(array, divisor, words)
    assert as_text(words, size) == expected
    out = np.zeros(len(values), dtype=np.uint32)
    stored = words_from_bytes(words_to_bytes(words, size))
    status, used = golomb.decode(stored, size, divisor, 2000, out)
    assert (status, int(used)) == (STATUS_OK, size)
    assert out.tolist() == values
    if size:
        status, _ = golomb.decode(stored, size - 1, divisor, 2000, out)
        assert status == STATUS_TRUNCATED
    largest = max(values, default=0)
    if largest:
        status, _ = golomb.decode(stored, size, divisor, largest - 1, out)
        assert status == STATUS_RANGE


def test_golomb_takes_the_largest_values() -> None:
    array = np.array([2**32 - 1, 0, 2**31, 2**32 - 2], dtype=np.uint32)
    for divisor in (2**27, 2**30 - 5, 2**32 - 1, 2**32):
        size = int(golomb.size(array, divisor))
        words = new_words(size)
        golomb.encode(array, divisor, words)
        assert as_text(words, size) == "".join(golomb_text(int(v), divisor) for v in array)
        out = np.zeros_like(array)
        status, used = golomb.decode(words, size, divisor, 2**32 - 1, out)
        assert (status, int(used)) == (STATUS_OK, size)
        np.testing.assert_array_equal(out, array)


@QUICK
@given(st.binary(max_size=60), st.integers(1, 2**32), st.integers(0, 2**32 - 1))
def test_golomb_survives_garbage(data: bytes, divisor: int, largest: int) -> None:
    out = np.zeros(50, dtype=np.uint32)
    status, used = golomb.decode(words_from_bytes(data), 8 * len(data), divisor, largest, out)
    assert 0 <= used <= 8 * len(data)
    assert status in (STATUS_OK, STATUS_TRUNCATED, STATUS_RANGE)
    assert int(out.max()) <= largest


@QUICK
@given(
    st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=60),
    st.integers(0, 9).flatmap(lambda d: st.tuples(st.just(d), st.integers(0, min(3, d)))),
)
def test_tokens_and_tails(values: list[int], shape: tuple[int, int]) -> None:
    direct, mantissa = shape
    array = np.array(values, dtype=np.uint32)
    tokens = np.zeros(array.size, dtype=np.uint16)
    bits.tokenize(array, direct, mantissa, tokens)
    bases = np.zeros(1024, dtype=np.uint32)
    widths = np.zeros(1024, dtype=np.uint8)
    for value, token in zip(values, tokens.tolist(), strict=True):
        if value < 1 << direct:
            assert token == value
            bases[token] = value
            continue
        e = value.bit_length() - 1
        kept = value >> (e - mantissa)
        assert token == (1 << direct) + ((e - direct) << mantissa) + kept - (1 << mantissa)
        bases[token] = kept << (e - mantissa)
        widths[token] = e - mantissa
    size = int(widths[tokens].sum())
    words = new_words(size)
    bits.pack_tails(array, tokens, widths, words)
    out = np.zeros_like(array)
    bits.unpack_tails(words_from_bytes(words_to_bytes(words, size)), tokens, bases, widths, out)
    assert out.tolist() == values


@QUICK
@given(st.lists(st.booleans(), min_size=1, max_size=100))
def test_bitmaps(flags: list[bool]) -> None:
    bitmap = np.packbits(np.array(flags), bitorder="little")
    expected = np.flatnonzero(flags)
    out = np.zeros(expected.size, dtype=np.int64)
    assert bits.positions_from_bitmap(bitmap, len(flags), out) == expected.size
    np.testing.assert_array_equal(out, expected)
    more = np.zeros(expected.size + 1, dtype=np.int64)
    assert bits.positions_from_bitmap(bitmap, len(flags), more) == -1
    if expected.size:
        assert bits.positions_from_bitmap(bitmap, len(flags), out[1:].copy()) == -1
        assert bits.positions_from_bitmap(bitmap, int(expected[-1]), out) == -1


@pytest.mark.parametrize("size", range(9))
def test_words_keep_bytes_and_add_zeros(size: int) -> None:
    data = bytes(range(1, size + 1))
    words = words_from_bytes(data)
    assert words_to_bytes(words, 8 * size) == data
    assert words[-2:].tolist() == [0, 0]
    assert len(words) == (size + 3) // 4 + 2
