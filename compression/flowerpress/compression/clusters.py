"""One-dimensional k-means: the best clusters (``optimal``), or those of Lloyd's iteration."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.kernels.kmeans import BINS, assign, best_intervals, float_histogram

__all__ = ["lloyd", "nearest_centroid", "optimal"]

ROUNDS = 100
_FEW = 1 << 16  # values that are sorted rather than counted in bins
_POLISH = 25


def lloyd(x: NDArray[Any], clusters: int) -> NDArray[np.float32]:
    """Return at most ``clusters`` distinct ascending centroids of the flat array ``x``.

    Lloyd's iteration (IEEE Trans. IT 1982) from evenly spaced starts, exact on sorted values with
    prefix sums: each round costs ``clusters`` binary searches. Deterministic.
    """
    if not x.size:
        return np.zeros(1, np.float32)
    values = np.sort(x).astype(np.float64)
    sums = np.concatenate([[0.0], values.cumsum()])
    centroids = np.unique(np.linspace(values[0], values[-1], clusters))
    for _ in range(ROUNDS):
        edges = np.searchsorted(values, (centroids[1:] + centroids[:-1]) / 2)
        bounds = np.concatenate([[0], edges, [values.size]])
        sizes = np.diff(bounds)
        means = np.diff(sums[bounds])[sizes > 0] / sizes[sizes > 0]
        if means.size == centroids.size and np.array_equal(means, centroids):
            break
        centroids = means
    return np.unique(centroids.astype(np.float32))


def optimal(x: NDArray[np.float32], clusters: int, bins: int = 0) -> NDArray[np.float32]:
    """Return at most ``clusters`` distinct ascending centroids with the least squared error.

    A dynamic program over intervals of bins (see ``kernels.kmeans``), then Lloyd's iteration over
    finer ones. Where ``x`` has at most ``bins`` different values, each is a bin and the result is
    the optimum (before centroids are rounded to float32). Otherwise bins are intervals with equal
    shares of the integral of density^(1/3), in which the best quantizers space their centroids
    (Panter and Dite, Proc. IRE 1951), so that each cluster has about bins / clusters of them.

    The squared error then exceeds the optimum by at most 2 (max - min) max_b n_b w_b, n_b values in
    bin b of width w_b: move each border of the best clusters to the nearest edge of a bin. Of the
    values in that bin, at most n_b change from centroid c to the next, c', each by at most
    2 w_b (c' - c), and the distances of neighbours sum to less than max - min. In practice it is
    well below 0.1%.

    Args:
        x: flat, finite.
        clusters: 1 to 256.
        bins: of the dynamic program; by default 32 for each cluster, at least 1024.
    """
    if not x.size:
        return np.zeros(1, np.float32)
    counts, sums = _fine(np.ascontiguousarray(x, np.float32))
    if counts.size <= clusters:
        return np.unique((sums / counts).astype(np.float32))
    centre = sums.sum() / counts.sum()
    sums = sums - centre * counts  # or else squares would be large and their differences small
    most = bins or max(1024, 32 * clusters)
    edges = _coarse(counts, sums, most)
    n = edges.size
    total_counts = _running(np.add.reduceat(counts, edges))
    total_sums = _running(np.add.reduceat(sums, edges))
    starts = np.empty((clusters, n), np.int32)
    best_intervals(total_counts, total_sums, starts, np.empty((2, n)))
    bounds = np.empty(clusters + 1, np.int64)
    bounds[clusters] = n
    for row in range(clusters - 1, -1, -1):
        bounds[row] = starts[row, bounds[row + 1] - 1]
    # An outlier's rounding can leave a cluster without values.
    sizes = np.diff(total_counts[bounds])
    centroids = (np.diff(total_sums[bounds]) / np.maximum(sizes, 1))[sizes > 0]
    if n < counts.size:
        centroids = _polished(counts, sums, centroids)
    return np.unique((centroids + centre).astype(np.float32))


def nearest_centroid(x: NDArray[np.float32], centroids: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return the index of the nearest of ascending ``centroids``, the lower one where two are."""
    # In double precision half the sum of two neighbours is exact, or rounds above floats.
    wide = centroids.astype(np.float64)
    middles = (wide[1:] + wide[:-1]) / 2
    # A float32 is above a middle if it is above the last float32 that is not.
    thresholds = middles.astype(np.float32)
    lower = np.nextafter(thresholds, np.float32(-np.inf))
    padded = np.full((1 << middles.size.bit_length()) - 1, np.inf, np.float32)
    padded[: middles.size] = np.where(thresholds > middles, lower, thresholds)
    out = np.empty(x.size, np.uint8)
    assign(np.require(x, np.float32, ("C", "W", "A")), padded, out)
    return out


def _fine(x: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return count and sum of every different value, or of narrow bins where there are many."""
    if x.size <= _FEW:
        values, counts = np.unique(x, return_counts=True)
        return counts.astype(np.float64), values.astype(np.float64) * counts
    counted, sums = np.zeros(BINS, np.int64), np.zeros(BINS, np.float64)
    float_histogram(np.require(x, np.float32, ("C", "W", "A")).view(np.uint32), counted, sums)
    where = np.flatnonzero(counted)
    return counted[where].astype(np.float64), sums[where]


def _coarse(counts: NDArray[np.float64], sums: NDArray[np.float64], most: int) -> NDArray[np.int64]:
    """Return the first fine bin of each of at most ``most`` coarse ones."""
    if counts.size <= most:
        return np.arange(counts.size)
    means = sums / counts
    gaps = np.maximum(np.diff(means), 0.0)
    lengths = np.cbrt((counts[1:] + counts[:-1]) / 2 * gaps * gaps)
    place = _running(lengths)
    numbers = np.minimum(place * (most / max(place[-1], 1e-300)), most - 1).astype(np.int64)
    return np.flatnonzero(np.diff(numbers, prepend=-1))


def _polished(
    counts: NDArray[np.float64], sums: NDArray[np.float64], centroids: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the centroids after Lloyd's iteration over fine bins, which makes nothing worse."""
    means = sums / counts
    total_counts, total_sums = _running(counts), _running(sums)
    for _ in range(_POLISH):
        edges = np.searchsorted(means, (centroids[1:] + centroids[:-1]) / 2)
        bounds = np.concatenate([[0], edges, [means.size]])
        sizes = np.diff(total_counts[bounds])
        moved = np.where(sizes > 0, np.diff(total_sums[bounds]) / np.maximum(sizes, 1), centroids)
        if np.array_equal(moved, centroids):
            break
        centroids = moved
    return centroids


def _running(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([[0.0], values.cumsum()])
