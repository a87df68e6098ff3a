"""Sums over single-precision values in double precision, a block at a time to save memory."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["deviation", "rms", "squares"]

_BLOCK = 1 << 16

Flat = NDArray[np.float32]


def squares(x: Flat, mean: float = 0.0) -> float:
    """Return the sum of the squared distances of flat ``x`` from ``mean``."""
    total = 0.0
    for start in range(0, x.size, _BLOCK):
        wide = x[start : start + _BLOCK].astype(np.float64)
        wide -= mean
        total += float(np.einsum("i,i->", wide, wide))
    return total


def rms(x: Flat) -> float:
    """Return the root mean square of flat ``x``; 0 if it is empty."""
    return math.sqrt(squares(x) / max(x.size, 1))


def deviation(parts: Sequence[Flat]) -> float:
    """Return the standard deviation of all entries of flat arrays together; 0 if none."""
    n = max(sum(x.size for x in parts), 1)
    mean = sum(float(x.sum(dtype=np.float64)) for x in parts) / n
    return math.sqrt(sum(squares(x, mean) for x in parts) / n)
