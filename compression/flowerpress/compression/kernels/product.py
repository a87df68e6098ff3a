"""A product of two thin matrices that has the same bits everywhere.

BLAS adds in whatever order suits the machine. Here every element is one chain of float32 products
and sums in the order of the rank, without fused multiply-add: slower than BLAS for large ranks,
and bound by memory for small ones.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.kernels.jit import jit

__all__ = ["add_product"]


@jit
def add_product(
    left: NDArray[np.float32], right: NDArray[np.float32], out: NDArray[np.float32]
) -> None:
    """Add ``left @ right`` to ``out``: term k after term k - 1, each rounded to float32.

    Args:
        left: (rows, rank), C order.
        right: (rank, columns), C order.
        out: (rows, columns), C order.
    """
    rank = right.shape[0]
    tile = 2048  # columns whose terms stay in the first cache
    fours = rank - rank % 4
    for start in range(0, out.shape[1], tile):
        for i in range(out.shape[0]):
            row = out[i, start : start + tile]
            for k in range(0, fours, 4):
                p0, p1, p2, p3 = left[i, k], left[i, k + 1], left[i, k + 2], left[i, k + 3]
                q0, q1 = right[k, start : start + tile], right[k + 1, start : start + tile]
                q2, q3 = right[k + 2, start : start + tile], right[k + 3, start : start + tile]
                for j in range(row.size):
                    row[j] = (((row[j] + p0 * q0[j]) + p1 * q1[j]) + p2 * q2[j]) + p3 * q3[j]
            for k in range(fours, rank):
                p, q = left[i, k], right[k, start : start + tile]
                for j in range(row.size):
                    row[j] = row[j] + p * q[j]
