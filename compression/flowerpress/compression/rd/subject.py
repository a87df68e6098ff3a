"""One tensor on its way into a body: looked at once, coded with any step."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.kernels.levels import TRELLIS
from flowerpress.compression.kernels.trellis import offsets
from flowerpress.compression.moments import squares
from flowerpress.compression.rd import stream
from flowerpress.compression.rd.basis import DIGEST_BYTES, Bases, Reference
from flowerpress.compression.rd.body import Body
from flowerpress.compression.rd.factors import (
    MOST_RANKS,
    Factors,
    Sketch,
    factorize,
    sketch,
)
from flowerpress.compression.rd.profile import Forecast, Profile, profile
from flowerpress.compression.rd.quantize import LAMBDA, quantize
from flowerpress.compression.rd.stream import Kind, plane
from flowerpress.compression.rd.views import chosen, matrix, matrix_shape, views

__all__ = ["Subject"]

_FINEST = 2.0**-22  # of the largest magnitude: finer steps than float32 has
_FEWEST_DEAD = 1 / 8
_FIRST = 16
_PROMISING = 9
_REST_BITS = 16
_SIDE_BITS = 100
_SAMPLE = 1 << 15
_NOTHING = 0.5
_WARMEST = 1e15

Matrix = NDArray[np.float32]


class Subject:
    """A tensor to be coded; what does not depend on the step is found out once.

    Args:
        values: float32, finite, of any shape.
        warm: rows near which the right factor may lie, (any, columns), or None.
        reference: a tensor of the same shape that the decoder has, too, or None.
    """

    def __init__(
        self, values: Matrix, warm: Matrix | None = None, reference: Matrix | None = None
    ) -> None:
        self.values = values
        # Whatever was stored: it only helps, and must not overflow.
        self.warm = warm if warm is not None and np.abs(warm).max(initial=0) < _WARMEST else None
        self.reference = None if reference is None else Reference(reference)
        self._looks = [_Look(self, view) for view in views(values.shape)] if values.size else []

    @cached_property
    def largest(self) -> float:
        """The largest magnitude."""
        return max(float(self.values.max(initial=0)), -float(self.values.min(initial=0)))

    @cached_property
    def energy(self) -> float:
        """The sum of squares."""
        return squares(self.values.reshape(-1))

    def encode(self, shared: float, like: float | None = None) -> bytes:
        """Return the body for a whole step of ``shared``; empty where all becomes zero.

        With ``like``, view and rank are those of that step, so that the number of bytes changes
        smoothly around it.
        """
        if not self.values.size or self.largest * self.values.size**0.5 < shared:
            return b""  # all of it is worth less than the shortest body
        step = float(np.float32(max(shared, self.largest * _FINEST)))
        look, rank, parts = self._best(like or step)
        x = look.matrix(step)
        factors = None
        if rank:
            assert parts is not None
            factors = factorize(x, parts, rank, step / self.largest, look.bases)
        return self._body(x, factors, look, step, shared)

    def forecast(self, step: float) -> Forecast:
        """Return about what a body for a whole step of ``step`` costs."""
        if not self.largest:
            return Forecast(0, 0.0, 0.0, 0.0)
        nothing = Forecast(0, self.energy / step**2, self.energy / step**2, 0.0)
        found = self._looks[0].forecast(_FIRST, step)
        found = replace(
            found, price=found.price + LAMBDA * _SIDE_BITS, bits=found.bits + _SIDE_BITS
        )
        return min(nothing, found, key=lambda f: f.price)

    def _best(self, step: float) -> tuple[_Look, int, Sketch | None]:
        """Return the best look, the best rank, and the singular triples that it is of."""
        if len(self._looks) == 1 and min(self._looks[0].shape) < 2:
            return self._looks[0], 0, None
        forecasts = [look.forecast(_FIRST, step) for look in self._looks]
        index = min(range(len(forecasts)), key=lambda i: forecasts[i].price)
        look, found = self._looks[index], forecasts[index]
        if found.rank >= _PROMISING and min(look.shape) > _FIRST:
            further = look.forecast(MOST_RANKS, step)
            if further.price < found.price:
                return look, further.rank, look.seen(MOST_RANKS)[0]
        return look, found.rank, look.seen(_FIRST)[0]

    def _body(
        self, x: Matrix, factors: Factors | None, look: _Look, step: float, shared: float
    ) -> bytes:
        if factors is not None:
            x -= factors.left.T @ factors.right
        levels = quantize(x)
        shifts, lost, kept = _shifts(x, levels)
        planes = [plane(Kind.FACTOR, p) for p in factors.planes] if factors else []
        left_basis, right_basis = factors.based if factors else (False, False)
        based = left_basis or right_basis
        signs = factors is None
        rest = [plane(Kind.REST, levels)] if levels.any() else []
        if not planes and not rest:
            return b""
        lanes, coded, bits = stream.encode([*planes, *rest], signs=signs)
        if planes and rest and lost + LAMBDA * (bits[-1] + _REST_BITS) > kept:
            rest = []  # not worth its bits
            lanes, coded, bits = stream.encode(planes, signs=signs)
        planes += rest
        body = Body(
            view=look.view,
            step=step if step != shared else None,
            rows=look.rows,
            columns=look.columns,
            exponents=factors.exponents if factors else [],
            reference=self.reference.digest[:DIGEST_BYTES] if self.reference and based else None,
            left_basis=left_basis,
            right_basis=right_basis,
            shifts=shifts if rest else None,
            signs=signs,
            lanes=lanes,
            low=[p.low for p in planes],
        ).write(self.values.shape, coded)
        if (lost if rest else kept) + LAMBDA * 8 * len(body) > self.energy / step**2 + _NOTHING:
            return b""
        return body


class _Look:
    """A tensor as one of its matrices, without rows and columns of zeros where there are many."""

    def __init__(self, subject: Subject, view: int) -> None:
        self.view = view
        self._subject = subject
        self._seen: dict[int, tuple[Sketch | None, Profile]] = {}
        alive = matrix(subject.values, view) != 0
        self.rows = _alive(alive.any(axis=1))
        self.columns = _alive(alive.any(axis=0))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        m, n = matrix_shape(self._subject.values.shape, self.view)
        return (
            m if self.rows is None else self.rows.size,
            n if self.columns is None else self.columns.size,
        )

    def matrix(self, step: float) -> Matrix:
        """Return the matrix in steps, a new array."""
        x = chosen(self._subject.values, self.view, self.rows, self.columns)
        own = not np.shares_memory(x, self._subject.values)
        return np.divide(x, np.float32(step), out=x if own else None)

    def seen(self, rank: int) -> tuple[Sketch | None, Profile]:
        """Return at most ``rank`` singular triples and the profile with them.

        Both in units of the largest magnitude: squares and sums must not overflow.
        """
        if rank not in self._seen:
            x = self.matrix(self._subject.largest)
            start = self._subject.warm
            if start is not None and start.shape[-1] != x.shape[1]:
                start = None
            found = sketch(x, min(rank, *x.shape), start) if min(x.shape) > 1 else None
            self._seen[rank] = found, profile(x, found)
        return self._seen[rank]

    def forecast(self, rank: int, step: float) -> Forecast:
        """Return what is best with a whole step of ``step`` and at most ``rank`` factors."""
        return self.seen(rank)[1].forecast(step / self._subject.largest)

    @cached_property
    def bases(self) -> Bases:
        """The bases of the reference; without vectors if there is none."""
        reference = self._subject.reference
        known = None
        if reference is not None:
            known = reference.bases(self.view, self.rows, self.columns)
        return known or Bases.none(*self.shape)


def _alive(alive: NDArray[Any]) -> NDArray[np.int64] | None:
    where = np.flatnonzero(alive)
    return where if 0 < where.size < (1 - _FEWEST_DEAD) * alive.size else None


def _shifts(x: Matrix, levels: NDArray[np.int32]) -> tuple[list[int], float, float]:
    """Return how far the centroids of points 1 to 4 lie outside of them, in 1/32 of a step.

    Also the squared error with these, and that of sending none of the levels, in squared steps;
    from some of the rows where there are many.
    """
    sums, squares = np.zeros((6, 2)), np.zeros(2)
    stride = max(1, levels.size // _SAMPLE)
    offsets(x[::stride], levels[::stride], TRELLIS, sums, squares)
    count, total = np.maximum(sums[1:5, 0], 1), sums[1:5, 1]
    shifts = np.clip(np.rint(32 * total / count), -8, 7)
    squares[0] -= (2 * total - shifts / 32 * count) @ (shifts / 32)
    squares *= len(x) / len(x[::stride])
    return [int(s) for s in shifts], float(squares[0]), float(squares[1])
