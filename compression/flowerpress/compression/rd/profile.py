"""What a matrix will cost with any step and rank, judged from some of its rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.rd.factors import Sketch
from flowerpress.compression.rd.quantize import LAMBDA, bits, price

__all__ = ["Forecast", "Profile", "profile"]

_RANKS = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64)
_SAMPLE = 1 << 14
_FEWEST_ROWS = 16
_SEGMENT = 32
_SIDE_BITS = 10.0

Matrix = NDArray[np.float32]


@dataclass(frozen=True)
class Forecast:
    """The best rank; distortion plus LAMBDA * bits, and distortion, in squared steps; the bits."""

    rank: int
    price: float
    distortion: float
    bits: float


@dataclass(frozen=True)
class Profile:
    """Mean magnitudes in units of the tensor.

    ``factors`` (2, k) of the columns of both factors times their singular values, ``sizes`` (2,)
    how long these are; ``rest`` (ranks, segments) of short pieces of some rows with so many
    factors taken away, ``weights`` (segments,) how many elements each piece stands for.
    """

    factors: NDArray[np.float32]
    sizes: NDArray[np.float64]
    ranks: list[int]
    rest: NDArray[np.float32]
    weights: NDArray[np.float64]

    def forecast(self, step: float) -> Forecast:
        """Return what is best with a whole step of ``step``."""
        inverse = np.float32(1 / step)
        factors = self.factors * inverse
        rest = self.rest * inverse
        first = np.zeros(1)
        paid = np.append(first, np.cumsum(self.sizes @ price(factors) + LAMBDA * _SIDE_BITS))
        total = price(rest) @ self.weights + paid[self.ranks]
        best = int(np.argmin(total))
        spent = np.append(first, np.cumsum(self.sizes @ bits(factors) + _SIDE_BITS))
        length = float(bits(rest[best]) @ self.weights + spent[self.ranks[best]])
        least = float(total[best])
        return Forecast(self.ranks[best], least, max(0.0, least - LAMBDA * length), length)


def profile(x: Matrix, parts: Sketch | None) -> Profile:
    """Return the profile of ``x`` (m, n) with the singular triples ``parts``, in its units."""
    m, n = x.shape
    some, each = _sample(x, min(m, max(_FEWEST_ROWS, _SAMPLE // n)))
    rest = x[some]
    starts = np.arange(0, n, _SEGMENT)
    lengths = np.diff(np.append(starts, n))
    values = np.zeros(0, np.float32) if parts is None else parts.values
    ranks = [rank for rank in _RANKS if rank <= values.size]
    means = np.empty((len(ranks), some.size * starts.size), np.float32)
    before = 0
    for row, rank in enumerate(ranks):
        if parts is not None and rank:
            left = parts.left[some, before:rank] * values[before:rank]
            rest -= left @ parts.right[:, before:rank].T
            before = rank
        means[row] = (np.add.reduceat(np.abs(rest), starts, axis=1) / lengths).reshape(-1)
    factors = np.zeros((2, values.size), np.float32)
    if parts is not None:
        factors[0] = np.abs(parts.left).mean(axis=0) * values
        factors[1] = np.abs(parts.right).mean(axis=0) * values
    weights = np.outer(each, lengths).reshape(-1)
    return Profile(factors, np.array([m, n], np.float64), ranks, means, weights)


def _sample(x: Matrix, few: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return about ``few`` rows, and how many rows each stands for.

    Half of them are the rows with the most energy, which a plain sample would miss; the others are
    spread over the rest, from much energy to little.
    """
    m = len(x)
    if few >= m:
        return np.arange(m), np.ones(m)
    order = np.argsort(-np.einsum("ij,ij->i", x, x), kind="stable")
    top = few // 2
    rest = order[top:]
    spread = rest[np.linspace(0, rest.size - 1, few - top).astype(np.intp)]
    each = np.append(np.ones(top), np.full(spread.size, rest.size / spread.size))
    return np.append(order[:top], spread), each
