"""The layout of a body: what it says beside its coded planes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise, zip_longest

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.errors import FormatError
from flowerpress.compression.positions import decode_positions, encode_positions
from flowerpress.compression.rd.basis import DIGEST_BYTES
from flowerpress.compression.rd.factors import MOST_RANKS
from flowerpress.compression.rd.views import matrix_shape, possible
from flowerpress.compression.wire import Reader, Writer

__all__ = ["SMALLEST_STEP", "Body"]

SMALLEST_STEP = 1e-30
_MOST_LOW = 29

_HAS_FACTORS = 1 << 2
_HAS_REST = 1 << 3
_SOME_ROWS = 1 << 4
_SOME_COLUMNS = 1 << 5
_OWN_STEP = 1 << 6
_REFERENCE = 1 << 7
_SIGNS = 1 << 2
_LOW = 1 << 3
_LEFT_BASIS = 1 << 4
_RIGHT_BASIS = 1 << 5


@dataclass(frozen=True)
class Body:
    """What precedes the coded planes.

    ``view`` says how the tensor is looked at; ``step`` is None where the codec's applies; ``rows``
    and ``columns`` are those that are coded, None for all; ``exponents`` the sizes of singular
    values; ``reference`` the digest of the reference whose bases are used, for the left and the
    right factor or one of them; ``shifts`` how far centroids lie outside of points 1 to 4 in 1/32
    of a step, None if there is no rest; ``signs`` whether the signs of the rest have contexts;
    ``lanes`` the logarithm of the number of lanes; ``low`` the plain bits of each plane.
    """

    view: int
    step: float | None
    rows: NDArray[np.int64] | None
    columns: NDArray[np.int64] | None
    exponents: list[int]
    reference: bytes | None
    left_basis: bool
    right_basis: bool
    shifts: list[int] | None
    signs: bool
    lanes: int
    low: list[int]

    def write(self, shape: tuple[int, ...], coded: bytes) -> bytes:
        """Return the bytes of this and of the coded planes of a tensor of ``shape``."""
        out = Writer()
        out.u8(
            self.view
            | _HAS_FACTORS * bool(self.exponents)
            | _HAS_REST * (self.shifts is not None)
            | _SOME_ROWS * (self.rows is not None)
            | _SOME_COLUMNS * (self.columns is not None)
            | _OWN_STEP * (self.step is not None)
            | _REFERENCE * (self.reference is not None)
        )
        out.u8(
            self.lanes
            | _SIGNS * self.signs
            | _LOW * any(self.low)
            | _LEFT_BASIS * self.left_basis
            | _RIGHT_BASIS * self.right_basis
        )
        if self.step is not None:
            out.f32(self.step)
        if self.reference is not None:
            out.raw(self.reference)
        sizes = matrix_shape(shape, self.view)
        for some, size in zip((self.rows, self.columns), sizes, strict=True):
            if some is not None:
                out.varint(some.size)
                out.blob(encode_positions(some, size, "smallest"))
        if self.exponents:
            _write_exponents(self.exponents, out)
        if self.shifts is not None:
            for a, b in zip(self.shifts[::2], self.shifts[1::2], strict=True):
                out.u8(a & 15 | (b & 15) << 4)
        if any(self.low):
            for low in self.low:
                out.u8(low)
        out.raw(coded)
        return out.getvalue()

    @classmethod
    def read(cls, reader: Reader, shape: tuple[int, ...]) -> Body:
        """Read what ``write`` wrote; the coded planes are next.

        Raises:
            WireError: what no encoder writes for a tensor of this shape.
        """
        kind, coding = reader.u8(), reader.u8()
        if coding >> 6 or not kind & (_HAS_FACTORS | _HAS_REST):
            raise FormatError(reader.field, "flags that no encoder sets")
        left, right = bool(coding & _LEFT_BASIS), bool(coding & _RIGHT_BASIS)
        if bool(kind & _REFERENCE) != (left or right) or (left or right) > (kind & _HAS_FACTORS):
            raise FormatError(reader.field, "a reference that no factor uses")
        view = kind & 3
        if view not in possible(shape):
            raise FormatError(reader.field, f"view {view} of a tensor of shape {shape}")
        step = None
        if kind & _OWN_STEP:
            step = reader.f32()
            if not step >= np.float32(SMALLEST_STEP):
                raise FormatError(reader.field, f"step {step}")
        reference = bytes(reader.take(DIGEST_BYTES)) if kind & _REFERENCE else None
        m, n = matrix_shape(shape, view)
        rows = _read_some(reader, m) if kind & _SOME_ROWS else None
        columns = _read_some(reader, n) if kind & _SOME_COLUMNS else None
        m = m if rows is None else rows.size
        n = n if columns is None else columns.size
        exponents = _read_exponents(reader, min(m, n)) if kind & _HAS_FACTORS else []
        shifts = None
        if kind & _HAS_REST:
            pairs = reader.u8(), reader.u8()
            nibbles = [nibble for pair in pairs for nibble in (pair & 15, pair >> 4)]
            shifts = [nibble - 16 * (nibble > 7) for nibble in nibbles]
        planes = (2 + left + right) * bool(exponents) + (shifts is not None)
        low = [_read_low(reader) if coding & _LOW else 0 for _ in range(planes)]
        signs, lanes = bool(coding & _SIGNS), coding & 3
        return cls(
            view,
            step,
            rows,
            columns,
            exponents,
            reference,
            left,
            right,
            shifts,
            signs,
            lanes,
            low,
        )


def _read_some(reader: Reader, size: int) -> NDArray[np.int64]:
    k = reader.varint()
    if not 0 < k < size:
        raise FormatError(reader.field, f"{k} of {size} rows or columns")
    return decode_positions(Reader(reader.blob(), f"{reader.field}.rows"), k, size)


def _write_exponents(exponents: list[int], out: Writer) -> None:
    """Write the rank, the first exponent, and by how much each is below the one before."""
    out.varint(len(exponents))
    out.u8(exponents[0])
    down = [a - b for a, b in pairwise(exponents)]
    for a, b in zip_longest(down[::2], down[1::2], fillvalue=0):
        out.u8(a | b << 4)


def _read_exponents(reader: Reader, most: int) -> list[int]:
    rank = reader.varint()
    if not 0 < rank <= min(most, MOST_RANKS):
        raise FormatError(reader.field, f"rank {rank} of at most {min(most, MOST_RANKS)}")
    exponents = [reader.u8()]
    pairs = [reader.u8() for _ in range(rank // 2)]
    down = [nibble for pair in pairs for nibble in (pair & 15, pair >> 4)]
    for step in down[: rank - 1]:
        exponents.append(exponents[-1] - step)
    if exponents[-1] < 0 or any(down[rank - 1 :]):
        raise FormatError(reader.field, "singular values that no encoder writes")
    return exponents


def _read_low(reader: Reader) -> int:
    low = reader.u8()
    if low > _MOST_LOW:
        raise FormatError(reader.field, f"{low} plain bits")
    return low
