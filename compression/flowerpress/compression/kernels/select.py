"""Loops that find the largest magnitudes or scores of float32 arrays in three passes.

The bits of a non-negative IEEE float sort like the float itself, so a histogram over the upper
bits of |x| finds the bin of the k-th largest, and only that bin needs sorting. Scores of either
sign are first mapped to integers that sort like them. One threshold may run over several arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.kernels.jit import jit

__all__ = ["best", "largest", "largest_in_chunks", "largest_over", "order_keys"]

_MAGNITUDE = np.uint32(0x7FFFFFFF)
_ALL = np.uint32(0xFFFFFFFF)
_BINS = 1 << 16
_FEW = 1 << 16  # below, sorting is cheaper than so many bins
_CHUNK_SHIFT = np.uint32(21)
_CHUNK_BINS = 1 << 10

Bits = NDArray[np.uint32]
Positions = NDArray[np.int64]


def largest(x: NDArray[np.float32], k: int) -> Positions:
    """Return the sorted positions of the ``k`` entries of largest ``|x|``, ties by lower index.

    Args:
        x: flat, contiguous, finite float32.
        k: at most ``x.size``.
    """
    return largest_over([x], k)[0]


def largest_over(parts: Sequence[NDArray[np.float32]], k: int) -> list[Positions]:
    """Return, for each array, the sorted positions of those of its entries that are among the
    ``k`` of largest magnitude of all arrays; ties by array, then by lower index.

    Args:
        parts: flat, contiguous, finite float32.
        k: at most the number of all entries.
    """
    return _select([x.view(np.uint32) for x in parts], k, _MAGNITUDE)


def best(keys: Sequence[Bits], k: int) -> list[Positions]:
    """Like :func:`largest_over` for keys from :func:`order_keys`."""
    return _select(keys, k, _ALL)


def order_keys(scores: NDArray[np.float32]) -> Bits:
    """Return uint32 keys that sort like flat ``scores`` without NaN; both zeros have one key."""
    bits = (scores + np.float32(0)).view(np.uint32)
    return np.where(bits >> 31, ~bits, bits | np.uint32(0x80000000))


def largest_in_chunks(keys: Bits, chunk: int, counts: NDArray[np.int64]) -> Positions:
    """Return the sorted positions of the ``counts[c]`` largest keys of every chunk, ties by index.

    Args:
        keys: magnitudes' bits, or from :func:`order_keys`; cut into chunks of ``chunk`` entries.
        chunk: entries in every chunk but the last, which may be shorter.
        counts: how many to keep of each chunk, at most its entries.
    """
    out = np.empty(int(counts.sum()), np.int64)
    _chunks(keys, chunk, counts, out)
    return out


def _select(parts: Sequence[Bits], k: int, mask: np.uint32) -> list[Positions]:
    total = sum(part.size for part in parts)
    if k == total:
        return [np.arange(part.size, dtype=np.int64) for part in parts]
    if k == 0:
        return [np.empty(0, np.int64) for _ in parts]
    if total < _FEW:
        keys = np.concatenate([part & mask for part in parts])
        threshold = np.partition(keys, total - k)[total - k]
        ties = k - int((keys > threshold).sum())
    else:
        shift = np.uint32(15 if mask == _MAGNITUDE else 16)
        counts = np.zeros(_BINS, np.int64)
        for part in parts:
            _count(part, mask, shift, counts)
        above = counts[::-1].cumsum()[::-1]  # above[b]: entries in bin b and beyond
        edge = int(np.searchsorted(-above, -k, side="right")) - 1
        beyond = int(above[edge + 1]) if edge + 1 < _BINS else 0
        inside = np.empty(counts[edge], np.uint32)
        found = 0
        for part in parts:
            found += _gather(part, mask, shift, np.uint32(edge), inside[found:])
        wanted = k - beyond  # of those inside, at least one
        threshold = np.partition(inside, inside.size - wanted)[inside.size - wanted]
        ties = wanted - int((inside > threshold).sum())
    out = np.empty(k, np.int64)
    chosen = []
    at = 0
    for part in parts:
        n, ties = _collect(part, mask, threshold, ties, out[at:])
        chosen.append(out[at : at + n])
        at += n
    return chosen


@jit
def _count(bits: Any, mask: Any, shift: Any, counts: Any) -> None:
    for i in range(bits.size):
        counts[(bits[i] & mask) >> shift] += 1


@jit
def _gather(bits: Any, mask: Any, shift: Any, edge: Any, out: Any) -> int:
    n = 0
    for i in range(bits.size):
        key = bits[i] & mask
        if key >> shift == edge:
            out[n] = key
            n += 1
    return n


@jit
def _collect(bits: Any, mask: Any, threshold: Any, ties: int, out: Any) -> tuple[int, int]:
    n = 0
    for i in range(bits.size):
        key = bits[i] & mask
        if key > threshold:
            out[n] = i
            n += 1
        elif key == threshold and ties > 0:
            out[n] = i
            n += 1
            ties -= 1
    return n, ties


@jit
def _chunks(keys: Any, chunk: int, counts: Any, out: Any) -> None:
    bins = np.empty(_CHUNK_BINS * 2, np.int64)
    inside = np.empty(min(chunk, keys.size), np.uint32)
    at = 0
    for c in range(counts.size):
        start = c * chunk
        stop = min(start + chunk, keys.size)
        k = counts[c]
        if k <= 0:
            continue
        bins[:] = 0
        for i in range(start, stop):
            bins[keys[i] >> _CHUNK_SHIFT] += 1
        edge = bins.size - 1
        beyond = 0
        while beyond + bins[edge] < k:
            beyond += bins[edge]
            edge -= 1
        n = 0
        for i in range(start, stop):
            if keys[i] >> _CHUNK_SHIFT == np.uint32(edge):
                inside[n] = keys[i]
                n += 1
        wanted = k - beyond
        threshold = np.partition(inside[:n], n - wanted)[n - wanted]
        ties = wanted
        for i in range(n):
            ties -= inside[i] > threshold
        for i in range(start, stop):
            if keys[i] > threshold:
                out[at] = i
                at += 1
            elif keys[i] == threshold and ties > 0:
                out[at] = i
                at += 1
                ties -= 1
