"""Sorted positions survive, near their entropy; hostile ones never leave the tensor."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from flowerpress.compression.entropy import entropy, gap_entropy, subset_bits
from flowerpress.compression.errors import FormatError, UnknownNameError, WireError
from flowerpress.compression.positions import PositionMode, decode_positions, encode_positions
from flowerpress.compression.wire import Reader

QUICK = settings(deadline=None, max_examples=120)
MODES: tuple[PositionMode, ...] = get_args(PositionMode)


def decode(body: bytes, count: int, size: int) -> NDArray[np.int64]:
    return decode_positions(Reader(body, "positions"), count, size)


@st.composite
def subsets(draw: st.DrawFn) -> tuple[NDArray[np.int64], int]:
    size = draw(st.sampled_from([1, 2, 5, 8, 63, 64, 1000, 5000]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    flags = rng.random(size) < draw(st.sampled_from([0, 0.01, 0.1, 0.5, 0.97, 1]))
    if draw(st.booleans()):
        flags = np.sort(flags)
    return np.flatnonzero(flags), size


@QUICK
@given(subsets(), st.sampled_from(MODES))
def test_round_trip(case: tuple[NDArray[np.int64], int], mode: PositionMode) -> None:
    positions, size = case
    body = encode_positions(positions, size, mode)
    decoded = decode(body, positions.size, size)
    assert decoded.dtype == np.int64
    np.testing.assert_array_equal(decoded, positions)
    if positions.size in (0, size):
        assert body == b""
    if mode == "smallest":
        fixed = [len(encode_positions(positions, size, other)) for other in MODES[:-1]]
        assert len(body) <= min(fixed) * 1.05 + 2


@pytest.mark.parametrize("size", [1 << 31, 1 << 32])
def test_large_tensors(size: int) -> None:
    positions = np.array([0, 5, 1 << 30, size - 1])
    for mode in ("address", "rans", "smallest"):
        body = encode_positions(positions, size, mode)
        assert len(body) <= 21
        np.testing.assert_array_equal(decode(body, 4, size), positions)


@pytest.mark.parametrize("density", [0.001, 0.01, 0.05, 0.1, 0.2])
def test_within_one_percent_of_the_bound(density: float) -> None:
    size = 1_000_000
    rng = np.random.default_rng(7)
    positions = np.sort(rng.choice(size, int(size * density), replace=False))
    bound = subset_bits(positions.size, size)
    bits = 8 * len(encode_positions(positions, size))
    assert 0.99 * bound < bits < 1.01 * bound
    if density >= 0.05:
        assert bits < 1.01 * gap_entropy(positions) * positions.size
        assert entropy(np.zeros(4, dtype=np.int64)) == 0


def test_damaged_bodies_raise_or_stay_inside() -> None:
    rng = np.random.default_rng(11)
    size = 3000
    bodies = []
    for mode in MODES[:-1]:
        for count in (1, 60, 900):
            positions = np.sort(rng.choice(size, count, replace=False))
            bodies.append((encode_positions(positions, size, mode), count))
    accepted = refused = 0
    for turn in range(4000):
        body, count = bodies[turn % len(bodies)]
        data = bytearray(body)
        for _ in range(rng.integers(1, 4)):
            data[int(rng.integers(0, min(len(data), 40)))] ^= 1 << int(rng.integers(0, 8))
        if rng.random() < 0.2:
            del data[int(rng.integers(0, len(data))) :]
        try:
            positions = decode(bytes(data), count, size)
        except WireError:
            refused += 1
            continue
        accepted += 1
        assert positions.shape == (count,)
        assert positions[0] >= 0
        assert positions[-1] < size
        assert bool((np.diff(positions) > 0).all())
    assert accepted + refused == 4000
    assert refused > 1000


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"\x00\x34", "do not increase"),
        (b"\x09\x00", "unknown mode 9"),
        (b"\x03\x07\x00", "does not mark 2 of 12"),
        (b"\x03\x01\x80", "does not mark 2 of 12"),
        (b"\x01\x0b\xff", "symbol outside its alphabet"),
    ],
)
def test_what_no_encoder_writes(body: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        decode(body, 2, 12)


def test_gaps_that_leave_the_tensor_are_refused() -> None:
    body = encode_positions(np.array([0, 11]), 12, "golomb")
    later = bytearray(encode_positions(np.array([9, 11]), 12, "golomb"))
    assert decode(bytes(later), 2, 12).tolist() == [9, 11]
    assert decode(body, 2, 12).tolist() == [0, 11]
    with pytest.raises(FormatError, match="beyond 12"):
        # Gaps 9 and 9 would end at 19.
        decode(bytes([1, 11, *_two_gaps(9, 9)]), 2, 12)


def _two_gaps(first: int, second: int) -> bytes:
    """Golomb codes with divisor 11: a zero, then 3 bits below 5 and 4 bits from 5 on."""
    text = ""
    for gap in (first, second):
        assert 5 <= gap < 11
        text += "0" + format((gap + 5) >> 1, "03b")[::-1] + str((gap + 5) & 1)
    return int(text[::-1], 2).to_bytes((len(text) + 7) // 8, "little")


def test_wrong_positions_are_refused() -> None:
    for bad in ([3, 3], [4, 2], [-1, 2], [0, 10]):
        with pytest.raises(ValueError, match=r"strictly increasing within \[0, 10\)"):
            encode_positions(np.array(bad), 10)
    with pytest.raises(ValueError, match="11 positions among 10"):
        encode_positions(np.arange(11), 10)
    with pytest.raises(UnknownNameError, match="golomb"):
        encode_positions(np.arange(3), 10, "gollomb")  # type: ignore[arg-type]
    with pytest.raises(FormatError):
        decode(b"\x00", 0, 10)


def test_bounds() -> None:
    assert entropy(np.array([], dtype=np.int64)) == 0
    assert entropy(np.array([0, 1, 2, 3])) == 2
    assert subset_bits(0, 10) == subset_bits(10, 10) == 0
    assert subset_bits(1, 1024) == pytest.approx(10)
    assert gap_entropy(np.array([1, 3, 5, 7])) == 0
    with pytest.raises(ValueError, match="11 positions among 10"):
        subset_bits(11, 10)
