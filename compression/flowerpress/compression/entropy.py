"""Lower bounds to compare coders with."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["entropy", "gap_entropy", "subset_bits"]


def entropy(symbols: NDArray[np.integer[Any]]) -> float:
    """Empirical order-0 entropy of an integer array of any shape, in bits a symbol (0 if empty)."""
    if symbols.size == 0:
        return 0.0
    counts = np.unique(symbols, return_counts=True)[1]
    shares = counts / symbols.size
    return max(0.0, -float(shares @ np.log2(shares)))


def gap_entropy(positions: NDArray[np.integer[Any]]) -> float:
    """Empirical entropy of the gaps between increasing positions, in bits a position.

    With few positions most gaps occur once, and this falls below what any decodable stream takes:
    compare with :func:`subset_bits` there.
    """
    return entropy(np.ediff1d(positions.astype(np.int64), to_begin=positions[:1] + 1))


def subset_bits(count: int, size: int) -> float:
    """Bits that name one of the equally likely subsets of ``count`` out of ``size`` elements.

    log2 of the binomial coefficient: what positions cost that carry no pattern, in total.
    """
    if not 0 <= count <= size:
        raise ValueError(f"{count} positions among {size} elements")
    ways = math.lgamma(size + 1) - math.lgamma(count + 1) - math.lgamma(size - count + 1)
    return max(0.0, ways / math.log(2))
