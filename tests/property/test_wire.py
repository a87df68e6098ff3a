"""What a writer writes, a reader reads; nothing else gets through."""

from __future__ import annotations

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowerpress.compression.errors import (
    FormatError,
    NonFiniteError,
    TruncatedError,
    WireError,
)
from flowerpress.compression.wire import Reader, Writer


@given(
    st.integers(0, 2**63 - 1),
    st.integers(0, 255),
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.binary(max_size=300),
    st.binary(max_size=20),
)
def test_fields_survive(number: int, byte: int, real: float, blob: bytes, raw: bytes) -> None:
    writer = Writer()
    writer.varint(number)
    writer.u8(byte)
    writer.f32(real)
    writer.blob(blob)
    writer.raw(raw)
    data = writer.getvalue()
    assert len(writer) == len(data)
    reader = Reader(data, "body")
    assert reader.varint() == number
    assert reader.u8() == byte
    assert reader.f32() == real
    assert bytes(reader.blob()) == blob
    assert reader.remaining == len(raw)
    assert bytes(reader.take(len(raw))) == raw
    assert bytes(reader.rest()) == b""
    reader.finish()


@given(st.integers(0, 2**63 - 1))
def test_varints_are_as_short_as_leb128(number: int) -> None:
    writer = Writer()
    writer.varint(number)
    assert len(writer) == max(1, -(-number.bit_length() // 7))


@given(st.binary(max_size=40), st.lists(st.sampled_from(["varint", "u8", "f32", "blob"])))
def test_hostile_bytes_raise_only_wire_errors(data: bytes, calls: list[str]) -> None:
    reader = Reader(data, "body")
    fields = []
    try:
        for call in calls:
            getattr(reader, call)()
        reader.finish()
    except WireError as error:
        fields.append(error.field)
    assert fields in ([], ["body"])


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", TruncatedError),
        (b"\x80", TruncatedError),
        (b"\x80\x00", FormatError),
        (b"\xff" * 8 + b"\xff\x01", FormatError),
        (b"\xff" * 11, FormatError),
    ],
)
def test_bad_varints(data: bytes, expected: type[WireError]) -> None:
    with pytest.raises(expected, match="step"):
        Reader(data, "step").varint()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_floats_are_finite(value: float) -> None:
    with pytest.raises(NonFiniteError, match="scale"):
        Reader(struct.pack("<f", value), "scale").f32()
    with pytest.raises(ValueError, match="f32"):
        Writer().f32(value)


def test_writer_refuses_what_does_not_fit() -> None:
    for value in (-1, 2**63):
        with pytest.raises(ValueError, match="varint"):
            Writer().varint(value)
    for value in (-1, 256):
        with pytest.raises(ValueError, match="u8"):
            Writer().u8(value)
    with pytest.raises(ValueError, match="single precision"):
        Writer().f32(1e39)


def test_ends_are_guarded() -> None:
    with pytest.raises(TruncatedError, match="needs 4 bytes and has 3"):
        Reader(b"abc", "body").take(4)
    with pytest.raises(TruncatedError, match="needs 5 bytes and has 1"):
        Reader(b"\x05a", "body").blob()
    with pytest.raises(FormatError, match="3 bytes left over"):
        Reader(b"abc", "body").finish()
    with pytest.raises(ValueError, match="size of 0 or more"):
        Reader(b"abc", "body").take(-1)
