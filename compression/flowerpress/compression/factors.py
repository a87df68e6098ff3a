"""Thin factors of a matrix: finding them, and writing and reading them.

A tensor is seen as a matrix of its first axis by all others, so a convolution is O x (I k k), as
in Vogels et al. (NeurIPS 2019, section 3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.coders.base import Coder
from flowerpress.compression.coders.registry import coder, coder_named
from flowerpress.compression.errors import ConfigError, EncodeError, FormatError, NonFiniteError
from flowerpress.compression.spec import TensorSpec
from flowerpress.compression.wire import Reader, Writer

__all__ = ["FORMATS", "MOST", "FactorFormat", "as_matrix", "factorize", "matrix_shape"]

FORMATS = ("float32", "fp16")
MOST = 256
"""The largest rank: what decoding costs, whatever the bytes say, is this much a parameter."""

EXTRA_TURNS = 1
"""Power iterations that a random start gets beside those that any start gets."""

Matrix = NDArray[np.float32]
_EASY = 2.0**40  # squares of numbers within this and its inverse neither overflow nor vanish


def matrix_shape(spec: TensorSpec) -> tuple[int, int]:
    """Return rows and columns of the matrix that a tensor of at least two axes is.

    Raises:
        ValueError: fewer axes.
    """
    if len(spec.shape) < 2:
        raise ValueError(f"tensor {spec.name!r} has fewer than two axes and is no matrix")
    rows = spec.shape[0]
    return rows, spec.size // rows if rows else 0


def as_matrix(flat: Matrix, spec: TensorSpec) -> Matrix:
    """Return a tensor's elements as its matrix, a view.

    Raises:
        EncodeError: the tensor has fewer than two axes.
    """
    if len(spec.shape) < 2:
        raise EncodeError(spec.name, "has fewer than two axes, and so no factors")
    return flat.reshape(matrix_shape(spec))


@dataclass(frozen=True)
class FactorFormat:
    """The rank and the number format of two factors, and the coder of their bytes.

    A matrix that has fewer rows or columns than ``rank`` gets that many. The first factor has
    orthonormal columns before rounding. ``fp16`` gives each row of the second factor a float32
    scale, its largest magnitude.
    """

    rank: int
    number: str
    coder: Coder

    @classmethod
    def named(cls, rank: int, number: str, code: str) -> FactorFormat:
        """Return the format that a user wrote.

        Raises:
            ConfigError: a rank out of range, or an unknown format or coder.
        """
        if not 1 <= rank <= MOST:
            raise ConfigError(f"rank is {rank}; it must be from 1 to {MOST}")
        if number not in FORMATS:
            raise ConfigError(f"factors is {number!r}; it must be one of {', '.join(FORMATS)}")
        chosen = coder_named(code)
        alphabet = 1 << 16 if number == "fp16" else 256
        if alphabet > chosen.largest:
            raise ConfigError(
                f"{chosen.name} cannot code {number} factors: it codes at most "
                f"{chosen.largest} different levels, and is given {alphabet}"
            )
        return cls(rank, number, chosen)

    def terms(self, spec: TensorSpec) -> int:
        """Return the rank of the factors of a tensor."""
        return min(self.rank, *matrix_shape(spec))

    def size(self, spec: TensorSpec) -> int:
        """Return the bytes of the factors before coding."""
        rank = self.terms(spec)
        numbers = rank * sum(matrix_shape(spec))
        return 2 * numbers + 4 * rank if self.number == "fp16" else 4 * numbers

    def rounded(self, left: Matrix) -> Matrix:
        """Return the first factor as a decoder will have it."""
        return left.astype(np.float16).astype(np.float32) if self.number == "fp16" else left

    def write(self, left: Matrix, right: Matrix, spec: TensorSpec, out: Writer) -> None:
        """Write (rows, rank) and (rank, columns) to the end of a body.

        Raises:
            EncodeError: infinite factors.
        """
        if not np.isfinite(right).all():
            raise EncodeError(spec.name, "its factors do not fit a float32")
        if self.number == "fp16":
            scales = np.abs(right).max(axis=1, initial=0.0).astype("<f4")
            out.raw(scales.tobytes())
            units = right / np.where(scales > 0, scales, np.float32(1))[:, None]
            halves = np.concatenate([left.reshape(-1), units.reshape(-1)]).astype("<f2")
            symbols: NDArray[Any] = halves.view("<u2").astype(np.uint16, copy=False)
            out.raw(self.coder.encode(symbols, 1 << 16))
        else:
            numbers = np.concatenate([left.reshape(-1), right.reshape(-1)]).astype("<f4")
            planes = np.ascontiguousarray(numbers.view(np.uint8).reshape(-1, 4).T)
            out.raw(self.coder.encode(planes.reshape(-1), 256))

    def read(self, spec: TensorSpec, side: Reader) -> tuple[Matrix, Matrix]:
        """Return (rows, rank) and (rank, columns) from the rest of a body.

        Raises:
            WireError: not what an encoder writes.
        """
        rows, columns = matrix_shape(spec)
        rank = self.terms(spec)
        count = rank * (rows + columns)
        if self.number == "fp16":
            scales = np.frombuffer(side.take(4 * rank), "<f4").astype(np.float32)
            if not np.isfinite(scales).all():
                raise NonFiniteError(f"{side.field}.scales", "NaN or infinity")
            if (scales < 0).any():
                raise FormatError(f"{side.field}.scales", "negative")
            levels = self.coder.decode(side.rest(), count, 1 << 16)
            numbers = levels.astype("<u2").view("<f2").astype(np.float32)
        else:
            levels = self.coder.decode(side.rest(), 4 * count, 256)
            octets = np.ascontiguousarray(levels.reshape(4, -1).T)
            numbers = octets.reshape(-1).view("<f4").astype(np.float32)
        if not np.isfinite(numbers).all():
            raise NonFiniteError(f"{side.field}.factors", "NaN or infinity")
        left = numbers[: rank * rows].reshape(rows, rank)
        right = numbers[rank * rows :].reshape(rank, columns)
        if self.number == "fp16":
            with np.errstate(over="ignore"):
                right *= scales[:, None]
        return left, right

    def write_recipe(self, out: Writer) -> None:
        """Write rank, number format and coder."""
        out.varint(self.rank)
        out.u8(FORMATS.index(self.number))
        out.varint(self.coder.tag)

    @classmethod
    def read_recipe(cls, reader: Reader) -> FactorFormat:
        """Read what ``write_recipe`` wrote.

        Raises:
            WireError: a format that no encoder writes.
        """
        rank, number, tag = reader.varint(), reader.u8(), reader.varint()
        if not 1 <= rank <= MOST or number >= len(FORMATS):
            raise FormatError(f"{reader.field}.factors", f"rank {rank} in format {number}")
        chosen = coder(tag)
        if chosen.largest < (1 << 16 if FORMATS[number] == "fp16" else 256):
            raise FormatError(f"{reader.field}.factors", f"{chosen.name} cannot code them")
        return cls(rank, FORMATS[number], chosen)

    def describe(self) -> str:
        """Return the rank, the format and the coder."""
        return f"rank {self.rank} in {self.number} > {self.coder.name}"


def factorize(
    matrix: Matrix,
    form: FactorFormat,
    spec: TensorSpec,
    *,
    start: NDArray[np.float32] | None,
    turns: int,
    rng: np.random.Generator | None,
) -> tuple[Matrix, Matrix]:
    """Return factors (rows, rank) and (rank, columns) whose product is close to ``matrix``.

    Subspace iteration (Halko, Martinsson and Tropp, SIAM Review 2011, algorithm 4.4; with one turn
    and a warm start, Vogels et al., algorithm 1): P = orthogonalize(M Q), Q = M^T P. The second
    factor belongs to the first one *as rounded*, so it makes up for some of the rounding.

    Args:
        matrix: finite.
        form: gives the rank and the rounding.
        spec: the tensor's.
        start: (rank, columns), the second factor of a matrix like this one, or None.
        turns: at least 1; one more where ``start`` leaves directions open.
        rng: for these; without it they are the same each time.
    """
    rank = form.terms(spec)
    rows, columns = matrix.shape
    if not rank:
        return np.zeros((rows, 0), np.float32), np.zeros((0, columns), np.float32)
    largest = float(max(matrix.max(), -matrix.min()))
    exponent = 0
    if not 1 / _EASY < largest < _EASY and largest > 0:
        exponent = int(np.frexp(largest)[1])
        matrix = np.ldexp(matrix, -exponent)
    right, fresh = _directions(start, rank, columns, rng)
    for _ in range(turns + EXTRA_TURNS * fresh):
        product = (matrix @ right.T).astype(np.float64)
        left = np.linalg.qr(product)[0].astype(np.float32)
        right = left.T @ matrix
    rounded = form.rounded(left)
    if rounded is not left:
        right = rounded.T @ matrix
    with np.errstate(over="ignore"):
        return rounded, np.ascontiguousarray(np.ldexp(right, exponent) if exponent else right)


def _directions(
    start: NDArray[np.float32] | None, rank: int, columns: int, rng: np.random.Generator | None
) -> tuple[Matrix, bool]:
    """Return (rank, columns) of length one each, and whether some are not from ``start``."""
    out = np.zeros((rank, columns), np.float32)
    if start is not None and start.shape == out.shape and np.isfinite(start).all():
        largest = np.abs(start).max(axis=1, keepdims=True)
        np.divide(start, largest, out=out, where=largest > 0)
    lengths = np.sqrt((out * out).sum(axis=1, dtype=np.float64))
    empty = lengths == 0
    if empty.any():
        generator = rng or np.random.default_rng(0)
        out[empty] = generator.standard_normal((int(empty.sum()), columns), np.float32)
        lengths = np.sqrt((out * out).sum(axis=1, dtype=np.float64))
    out /= lengths[:, None].astype(np.float32)
    return out, bool(empty.any())
