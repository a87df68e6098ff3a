"""Sorted positions in few bytes: where the kept entries of a sparse tensor are.

Body: nothing when no position or every position is there, else one byte for the mode and

    0 address   every position at ceil(log2 size) bits
    1 golomb    gaps in Golomb codes (the best of a few divisors, in the body)
    2 rans      gaps by rANS: their magnitude and up to three bits below it by a table, the rest raw
    3 bitmap    one bit an element
    4, 5        the bitmap by rANS, 8 or 4 elements a symbol

A gap is the number of absent elements before a position, since the last one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.coders.base import LARGEST_ALPHABET, Coder, Symbols
from flowerpress.compression.coders.golomb import Golomb
from flowerpress.compression.coders.pack import Pack
from flowerpress.compression.coders.rans import Rans
from flowerpress.compression.coders.raw import Raw
from flowerpress.compression.errors import FormatError, UnknownNameError
from flowerpress.compression.kernels import bits
from flowerpress.compression.wire import Reader

__all__ = ["PositionMode", "decode_positions", "encode_positions"]

PositionMode: TypeAlias = Literal["address", "golomb", "rans", "bitmap", "smallest"]

_ADDRESS, _GOLOMB, _RANS, _BITMAP, _BITMAP_BYTES, _BITMAP_NIBBLES = range(6)
# Where a mode cannot be the smallest, or by so little that it is not worth the time to try.
_MOST_ADDRESSES = 256
_MOST_GOLOMB = 4096
_FEWEST_IN_BITMAP = 1 / 16


def encode_positions(
    positions: NDArray[np.integer[Any]], size: int, mode: PositionMode = "smallest"
) -> bytes:
    """Return a body for strictly increasing ``positions`` (k,) in [0, size), size <= 2**32.

    ``mode`` fixes the representation; "smallest" tries those that may win and takes the best.
    ``ValueError`` for positions that are not strictly increasing or out of range.
    """
    _check_sizes(positions.size, size)
    if mode not in get_args(PositionMode):
        raise UnknownNameError("position mode", mode, get_args(PositionMode))
    where = positions.astype(np.int64, copy=False)
    if where.size and (where[0] < 0 or where[-1] >= size or bool((np.diff(where) <= 0).any())):
        raise ValueError(f"positions must be strictly increasing within [0, {size})")
    if where.size in (0, size):
        return b""
    makers: dict[str, Callable[[NDArray[np.int64], int], bytes]] = {
        "address": _address,
        "golomb": _golomb,
        "rans": _rans,
        "bitmap": _bitmap,
    }
    if mode != "smallest":
        return makers[mode](where, size)
    names = ["rans"]
    if where.size <= _MOST_ADDRESSES:
        names.append("address")
    if where.size <= _MOST_GOLOMB:
        names.append("golomb")
    if where.size >= size * _FEWEST_IN_BITMAP:
        names.append("bitmap")
    return min((makers[name](where, size) for name in names), key=len)


def decode_positions(reader: Reader, count: int, size: int) -> NDArray[np.int64]:
    """Return ``count`` strictly increasing positions in [0, size), int64.

    Reads ``reader`` to its end: give a body that is followed by something else its own reader,
    ``Reader(outer.blob(), field)``. ``count`` and ``size`` are the receiver's own;
    ``TruncatedError`` and ``FormatError`` for anything that ``encode_positions`` cannot have made.
    """
    _check_sizes(count, size)
    if count in (0, size):
        reader.finish()
        return np.arange(count, dtype=np.int64)
    mode = reader.u8()
    body = reader.rest()
    if mode == _ADDRESS:
        where = Pack().decode(body, count, size).astype(np.int64)
        if bool((np.diff(where) <= 0).any()):
            raise FormatError(reader.field, "holds positions that do not increase")
        return where
    if mode in (_GOLOMB, _RANS):
        coder: Coder = Golomb() if mode == _GOLOMB else Rans()
        gaps = coder.decode(body, count, size - count + 1)
        # At most 2**32 gaps below 2**32: their sum fits 64 bits, whatever they are.
        if int(gaps.sum(dtype=np.uint64)) > size - count:
            raise FormatError(reader.field, f"holds a position beyond {size}")
        where = gaps.astype(np.int64)
        where += 1
        np.cumsum(where, out=where)
        where -= 1
        return where
    return _from_bitmap(_read_bitmap(mode, body, size, reader.field), count, size, reader.field)


def _check_sizes(count: int, size: int) -> None:
    if not 0 <= size <= LARGEST_ALPHABET:
        raise ValueError(f"a tensor has 0 to 2**32 elements, not {size}")
    if not 0 <= count <= size:
        raise ValueError(f"{count} positions among {size} elements")


def _gaps(where: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.diff(where, prepend=np.int64(-1)) - 1


def _address(where: NDArray[np.int64], size: int) -> bytes:
    return bytes([_ADDRESS]) + Pack().encode(where, size)


def _golomb(where: NDArray[np.int64], size: int) -> bytes:
    return bytes([_GOLOMB]) + Golomb().encode(_gaps(where), size - where.size + 1)


def _rans(where: NDArray[np.int64], size: int) -> bytes:
    return bytes([_RANS]) + Rans().encode(_gaps(where), size - where.size + 1)


def _bitmap(where: NDArray[np.int64], size: int) -> bytes:
    flags = np.zeros(size, dtype=np.uint8)
    flags[where] = 1
    bitmap = np.packbits(flags, bitorder="little")
    nibbles = np.stack([bitmap & 15, bitmap >> 4], axis=1)
    made = [
        bytes([_BITMAP]) + bitmap.tobytes(),
        bytes([_BITMAP_BYTES]) + Rans().encode(bitmap, 256),
        bytes([_BITMAP_NIBBLES]) + Rans().encode(nibbles, 16),
    ]
    return min(made, key=len)


def _read_bitmap(mode: int, body: memoryview, size: int, field: str) -> Symbols:
    length = (size + 7) // 8
    if mode == _BITMAP:
        return Raw().decode(body, length, 256)
    if mode == _BITMAP_BYTES:
        return Rans().decode(body, length, 256)
    if mode == _BITMAP_NIBBLES:
        nibbles = Rans().decode(body, 2 * length, 16)
        return np.asarray(nibbles[::2] | nibbles[1::2] << 4, dtype=np.uint8)
    raise FormatError(field, f"stores positions in the unknown mode {mode}")


def _from_bitmap(bitmap: Symbols, count: int, size: int, field: str) -> NDArray[np.int64]:
    where = np.empty(count, dtype=np.int64)
    if bits.positions_from_bitmap(bitmap, size, where) < 0:
        raise FormatError(field, f"has a bitmap that does not mark {count} of {size} elements")
    return where
