"""Which level for which value: rates that are learned from a sample, then the trellis search."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.kernels.levels import TRELLIS
from flowerpress.compression.kernels.trellis import magnitudes, search, to_points, to_quantizers

__all__ = ["LAMBDA", "bits", "points_of", "price", "quantize"]

LAMBDA = 0.09
"""Squared steps that one bit is worth: the slope of the rate-distortion curve of trellis-coded
quantization at all but the lowest rates, 2 ln 2 D with D = 0.065 squared steps."""

_SAMPLE = 1 << 13
_WEIGHT = 24.0
_SCALES = 64

Rates = tuple[NDArray[np.float64], NDArray[np.float64]]
"""The probability of zero (2, scales) by quantizer, and the mean excess over one (scales,)."""


def quantize(x: NDArray[np.float32]) -> NDArray[np.int32]:
    """Return the levels (m, n) of ``x`` (m, n), in steps.

    What a level costs depends on how large its neighbourhood is expected to be. That is learned
    from some of the rows.
    """
    rows, columns, peaks = _expectations(x)
    levels = np.zeros(x.shape, np.int32)
    if peaks.max(initial=0) < 0.5:
        return levels
    order = np.argsort(rows, kind="stable")
    few = max(1, min(len(x), _SAMPLE // x.shape[1]))
    some = order[np.linspace(0, len(x) - 1, few).astype(np.intp)]
    search(x, some, rows, columns, _costs(_expected()), levels)
    costs = _costs(_seen(levels[some], rows[some], columns))
    levels[some] = 0
    # A path of zeros stays in quantizer 0, where the first magnitude of one saves 2 |x| - 1
    # squared steps, and costs what its rate is more than that of zero.
    scale = (rows + columns.max(initial=0) + 1) >> 1
    least = (1 + costs[scale, 1] - costs[scale, 0]) / 2
    search(x, order[peaks[order] >= least[order]], rows, columns, costs, levels)
    return levels


def points_of(levels: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return the points (m, n) of levels, on a grid of half steps: what a decoder gets."""
    points = np.empty_like(levels)
    to_points(levels, TRELLIS, points)
    return points


def _expectations(
    x: NDArray[np.float32],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Return the half-octave of the mean magnitude of each row and column, and rows' peaks."""
    m, n = x.shape
    rows, columns, peaks = (np.zeros(size, np.float32) for size in (m, n, m))
    magnitudes(x, rows, columns, peaks)
    return _scale(rows / n), _scale(columns / m), peaks


def _scale(mean: NDArray[np.floating]) -> NDArray[np.int64]:
    logarithm = 1 + np.floor(2 * np.log2(np.maximum(mean * 512, 1)))
    return np.clip(np.where(mean < 1 / 512, 0, logarithm), 0, _SCALES - 1).astype(np.int64)


@cache
def _expected() -> Rates:
    """Return the rates of two-sided geometric levels with the mean of each scale."""
    mean = 2 ** ((np.arange(_SCALES) - 0.5) / 2) / 512
    t = (np.sqrt(1 + mean * mean) - 1) / mean
    zero = (1 - t) / (1 + t)
    # The odd quantizer's zero reaches less far.
    return np.stack([zero, np.minimum(0.98, 0.8 * zero)]), t / (1 - t)


def _seen(levels: NDArray[np.int32], rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Rates:
    """Return the rates in a sample, what was expected having the weight of some observations."""
    size = np.abs(levels)
    scale = (rows[:, None] + columns[None, :] + 1) >> 1
    quantizer = np.empty_like(levels)
    to_quantizers(levels, TRELLIS, quantizer)
    where = (quantizer * _SCALES + scale).reshape(-1)
    some = size.reshape(-1) > 0
    zero, excess = _expected()
    n = np.bincount(where, minlength=2 * _SCALES).reshape(2, _SCALES)
    nonzero = np.bincount(where[some], minlength=2 * _SCALES).reshape(2, _SCALES)
    more = np.bincount(
        scale.reshape(-1)[some], weights=size.reshape(-1)[some] - 1.0, minlength=_SCALES
    )
    return (
        (zero * _WEIGHT + n - nonzero) / (_WEIGHT + n),
        (excess * _WEIGHT + more) / (_WEIGHT + nonzero.sum(axis=0)),
    )


def _costs(rates: Rates) -> NDArray[np.float32]:
    """Return the table that the search takes: LAMBDA times bits."""
    zero, excess = rates
    t = excess / (1 + excess)
    one = 1 - np.log2(1 - zero) - np.log2(1 - t)  # with the sign
    lengths = np.stack([-np.log2(zero[0]), one[0], -np.log2(zero[1]), one[1], -np.log2(t)])
    return np.ascontiguousarray(LAMBDA * np.clip(lengths, 0, 20).T, np.float32)


# By the mean magnitude in steps, at half octaves from 2**-4 to 2**0.5: distortion in squared steps
# plus LAMBDA times the rate, and the rate. Between a Gaussian and a Laplacian source, measured with
# this quantizer and coder. Further up every octave is another bit; further down all is zero.
_MEANS = np.arange(-4.0, 0.6, 0.5)
_J = np.array([0.0065, 0.013, 0.0265, 0.0535, 0.102, 0.155, 0.199, 0.243, 0.287, 0.3315])
_BITS = np.array([0.0005, 0.0007, 0.001, 0.045, 0.29, 1.08, 1.62, 2.1, 2.56, 3.03])
_LOWEST, _OCTAVES, _PER_OCTAVE = -20, 60, 16


def price(mean: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return distortion plus LAMBDA * rate of a value where the mean magnitude is ``mean``.

    In squared steps; ``mean`` in steps.
    """
    prices: NDArray[np.float64] = _tables()[0][_place(mean)]
    return prices


def bits(mean: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the rate of a value, in bits, where the mean magnitude is ``mean`` steps."""
    rates: NDArray[np.float64] = _tables()[1][_place(mean)]
    return rates


def _place(mean: NDArray[np.floating]) -> NDArray[np.intp]:
    position = (np.log2(mean + np.float32(1e-30)) - _LOWEST) * _PER_OCTAVE
    place: NDArray[np.intp] = np.clip(position, 0, _OCTAVES * _PER_OCTAVE - 1).astype(np.intp)
    return place


@cache
def _tables() -> NDArray[np.float64]:
    logarithm = _LOWEST + (np.arange(_OCTAVES * _PER_OCTAVE) + 0.5) / _PER_OCTAVE
    below = _J[0] * 4 ** (np.minimum(logarithm, _MEANS[0]) - _MEANS[0])
    beyond = np.maximum(logarithm - _MEANS[-1], 0)
    prices = np.interp(logarithm, _MEANS, _J) + LAMBDA * beyond
    rates = np.interp(logarithm, _MEANS, _BITS) + beyond
    return np.stack([np.where(logarithm < _MEANS[0], below, prices), rates])
