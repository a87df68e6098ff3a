"""Loops that find the largest magnitudes of a float32 array in three passes.

The bits of a non-negative IEEE float sort like the float itself, so a histogram over the upper
bits of |x| finds the bin of the k-th largest, and only that bin needs sorting.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.kernels.jit import jit

__all__ = ["largest"]

_MAGNITUDE = np.uint32(0x7FFFFFFF)
_SHIFT = np.uint32(15)
_BINS = 1 << 16
_FEW = 1 << 16  # below, sorting is cheaper than so many bins


def largest(x: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Return the sorted positions of the ``k`` entries of largest ``|x|``, ties by lower index.

    Args:
        x: flat, contiguous, finite float32.
        k: at most ``x.size``.
    """
    if k == x.size:
        return np.arange(k, dtype=np.int64)
    if k == 0:
        return np.empty(0, np.int64)
    bits = x.view(np.uint32)
    if x.size < _FEW:
        magnitudes = bits & _MAGNITUDE
        threshold = np.partition(magnitudes, x.size - k)[x.size - k]
        out = np.empty(k, np.int64)
        _collect(bits, threshold, k - int((magnitudes > threshold).sum()), out)
        return out
    counts = np.zeros(_BINS, np.int64)
    _count(bits, counts)
    above = counts[::-1].cumsum()[::-1]  # above[b]: entries in bin b and beyond
    edge = int(np.searchsorted(-above, -k, side="right")) - 1
    beyond = int(above[edge + 1]) if edge + 1 < _BINS else 0
    inside = np.empty(counts[edge], np.uint32)
    _gather(bits, np.uint32(edge), inside)
    wanted = k - beyond  # of those inside, at least one
    threshold = np.partition(inside, inside.size - wanted)[inside.size - wanted]
    ties = wanted - int((inside > threshold).sum())
    out = np.empty(k, np.int64)
    _collect(bits, threshold, ties, out)
    return out


@jit
def _count(bits: Any, counts: Any) -> None:
    for i in range(bits.size):
        counts[(bits[i] & _MAGNITUDE) >> _SHIFT] += 1


@jit
def _gather(bits: Any, edge: Any, out: Any) -> None:
    n = 0
    for i in range(bits.size):
        magnitude = bits[i] & _MAGNITUDE
        if magnitude >> _SHIFT == edge:
            out[n] = magnitude
            n += 1


@jit
def _collect(bits: Any, threshold: Any, ties: int, out: Any) -> None:
    n = 0
    for i in range(bits.size):
        magnitude = bits[i] & _MAGNITUDE
        if magnitude > threshold:
            out[n] = i
            n += 1
        elif magnitude == threshold and ties > 0:
            out[n] = i
            n += 1
            ties -= 1
