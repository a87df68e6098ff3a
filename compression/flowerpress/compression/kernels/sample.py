"""A loop that draws sorted positions from a seed, the same on every machine."""

from __future__ import annotations

from typing import Any

import numpy as np

from flowerpress.compression.kernels.jit import jit

__all__ = ["sample"]


@jit
def sample(seed: Any, size: int, out: Any) -> None:
    """Fill ``out`` (int64, k <= size) with k increasing positions in [0, size), size <= 2**32.

    Selection sampling (Fan, Muller and Rezucha, JASA 1962; Knuth, TAOCP vol. 2, 3.4.2, algorithm
    S): position i is taken with probability (still wanted) / (still there), here by the upper half
    of a 64-bit random number, so probabilities are right within 2**-32. The numbers are those of
    SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), started at ``seed`` (uint64). Integers only.
    """
    state = seed
    taken = 0
    wanted = np.uint64(out.size)
    left = np.uint64(size)
    position = 0
    while wanted > np.uint64(0):
        state += np.uint64(0x9E3779B97F4A7C15)
        z = state
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
        drawn = ((z >> np.uint64(32)) * left) >> np.uint64(32)
        hit = drawn < wanted
        out[taken] = position
        taken += hit
        wanted -= np.uint64(hit)
        left -= np.uint64(1)
        position += 1
