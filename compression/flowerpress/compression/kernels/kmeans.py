"""One-dimensional k-means: histograms, the dynamic program, and the nearest centroid of values.

Clusters on a line are intervals, so the best k clusters of the first j bins are an interval at the
end behind the best k - 1 clusters of what precedes it (Wang and Song, The R Journal 2011). The
start of that interval moves right with j, which leaves few starts to try (Gronlund et al.,
arXiv:1701.07204, section 2.2: O(k n log n)).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.kernels.jit import jit

__all__ = ["BINS", "FRACTION", "assign", "best_intervals", "float_histogram", "lookup"]

FRACTION = 11
"""Bits of the fraction that tell bins apart: a bin is at most 2**-11 of its values wide."""
BINS = 1 << (9 + FRACTION)

_SHIFT = np.uint32(23 - FRACTION)


@jit
def float_histogram(
    bits: NDArray[np.uint32], counts: NDArray[np.int64], sums: NDArray[np.float64]
) -> None:
    """Count and add up float32 values, given by their bits, by sign, exponent and first fraction.

    Bins, ``BINS`` of them, are in the order of the values; both arrays are added to.
    """
    values = bits.view(np.float32)
    for i in range(bits.size):
        b = bits[i]
        # Negative floats sort backwards: turn all of their bits round, and the sign of the others.
        turned = np.uint32(0xFFFFFFFF) if b >> np.uint32(31) else np.uint32(0x80000000)
        key = (b ^ turned) >> _SHIFT
        counts[key] += 1
        sums[key] += np.float64(values[i])


@jit
def best_intervals(
    counts: NDArray[np.float64],
    sums: NDArray[np.float64],
    starts: NDArray[np.int32],
    score: NDArray[np.float64],
) -> None:
    """Find, for each j and each number of clusters, where the last cluster of bins 0 to j starts.

    A partition is scored by the sum of (sum of values)^2 / (number of values), which is the
    energy less the squared error, so the largest is best; of equals the first start is taken.

    Args:
        counts, sums: running totals with a zero in front, (n + 1,).
        starts: (k, n); row i is filled for i + 1 clusters. Needs k <= n.
        score: (2, n), scratch.
    """
    clusters, n = starts.shape
    for j in range(n):
        score[0, j] = sums[j + 1] * sums[j + 1] / counts[j + 1]
        starts[0, j] = 0
    for row in range(1, clusters):
        before, now, where = score[(row - 1) & 1], score[row & 1], starts[row]
        step = 1
        while step < n:
            step *= 2
        while step > 0:
            # Every multiple of 2 step is done; its neighbours bound the start of what lies between.
            j = step - 1
            while j < n:
                if j >= row:
                    low, high = row, j
                    if j - step >= row:
                        low = where[j - step]
                    if j + step < n:
                        high = min(j, where[j + step])
                    best, found = -1.0, low
                    for i in range(low, high + 1):
                        total = sums[j + 1] - sums[i]
                        value = before[i - 1] + total * total / (counts[j + 1] - counts[i])
                        if value > best:
                            best, found = value, i
                    now[j] = best
                    where[j] = found
                j += 2 * step
            step //= 2


@jit
def assign(x: NDArray[np.float32], thresholds: NDArray[np.float32], out: NDArray[np.uint8]) -> None:
    """Set ``out[i]`` to the number of ascending ``thresholds`` below ``x[i]``.

    ``thresholds`` is filled up with infinity to 2^m - 1 of them, m at most 8. Both ways are free of
    branches: count all of a few, or search through many by halves.
    """
    few = thresholds.size <= 15
    top = -1
    while (1 << (top + 1)) <= thresholds.size:
        top += 1
    block = 4096
    for start in range(0, x.size, block):
        part, levels = x[start : start + block], out[start : start + block]
        levels[:] = np.uint8(0)
        if few:
            for k in range(thresholds.size):
                edge = thresholds[k]
                for i in range(part.size):
                    levels[i] += np.uint8(part[i] > edge)
            continue
        for i in range(part.size):
            value = part[i]
            low = np.uint64(0)
            for shift in range(top, -1, -1):
                middle = low + (np.uint64(1) << np.uint64(shift)) - np.uint64(1)
                low += np.uint64(value > thresholds[middle]) << np.uint64(shift)
            levels[i] = np.uint8(low)


@jit
def lookup(
    levels: NDArray[np.uint8],
    tables: NDArray[np.float32],
    group: int,
    out: NDArray[np.float32],
) -> None:
    """Set ``out[i]`` to entry ``levels[i]`` of the table of its group of ``group`` elements."""
    for number in range(tables.shape[0]):
        table = tables[number]
        part, values = levels[number * group :][:group], out[number * group :][:group]
        for i in range(part.size):
            values[i] = table[part[i]]
