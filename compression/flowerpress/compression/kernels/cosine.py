"""Small matrices applied along one axis, with one order of summation everywhere."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.kernels.jit import jit

__all__ = ["mix"]


@jit
def mix(x: NDArray[np.float32], weights: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    """Write sum_j weights[i, j] x[b, j, c] to ``out`` (blocks, k, n), terms added in order of j.

    ``x`` is (blocks, k, n) and ``weights`` (k, k). No term is fused or reordered, so the result has
    the same bits on every machine.
    """
    blocks, k, n = x.shape
    for b in range(blocks):
        for i in range(k):
            for c in range(n):
                out[b, i, c] = weights[i, 0] * x[b, 0, c]
            for j in range(1, k):
                w = weights[i, j]
                for c in range(n):
                    out[b, i, c] += w * x[b, j, c]
