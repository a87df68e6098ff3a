"""Small linear algebra with one order of operations: the same bits on every machine."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.kernels.jit import jit

__all__ = ["orthonormalize", "outer_product"]


@jit
def outer_product(
    weights: NDArray[np.float32], x: NDArray[np.float32], out: NDArray[np.float32]
) -> None:
    """Write ``weights`` (k, m) times ``x`` (m, n) to ``out`` (k, n), terms added in order of m."""
    k, m = weights.shape
    n = x.shape[1]
    width = 256
    for start in range(0, n, width):
        stop = min(n, start + width)
        for a in range(k):
            for j in range(start, stop):
                out[a, j] = np.float32(0)
        i = 0
        while i + 4 <= m:
            for a in range(k):
                p = weights[a, i]
                q = weights[a, i + 1]
                r = weights[a, i + 2]
                s = weights[a, i + 3]
                for j in range(start, stop):
                    out[a, j] = (
                        ((out[a, j] + p * x[i, j]) + q * x[i + 1, j]) + r * x[i + 2, j]
                    ) + s * x[i + 3, j]
            i += 4
        while i < m:
            for a in range(k):
                p = weights[a, i]
                for j in range(start, stop):
                    out[a, j] += p * x[i, j]
            i += 1


@jit
def orthonormalize(rows: NDArray[np.float32]) -> None:
    """Make ``rows`` (k, n) orthonormal in place, each against those before it, twice.

    Modified Gram-Schmidt in double precision (Bjorck, BIT 7, 1967). A row that depends on those
    before it becomes zero.
    """
    k, n = rows.shape
    work = np.empty(n, np.float64)
    for a in range(k):
        before = 0.0
        for j in range(n):
            work[j] = rows[a, j]
            before += work[j] * work[j]
        for _ in range(2):
            for b in range(a):
                product = 0.0
                for j in range(n):
                    product += work[j] * rows[b, j]
                for j in range(n):
                    work[j] -= product * rows[b, j]
        after = 0.0
        for j in range(n):
            after += work[j] * work[j]
        scale = 0.0
        if after > before * 1e-10 and after > 0.0:
            scale = 1.0 / math.sqrt(after)
        for j in range(n):
            rows[a, j] = np.float32(work[j] * scale)
