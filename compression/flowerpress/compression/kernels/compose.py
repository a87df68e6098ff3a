"""Low rank plus points: the values of a decoded matrix, with one order of summation everywhere."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.kernels.jit import jit

__all__ = ["compose", "compose_into"]


@jit
def row_of(
    i: int,
    left: NDArray[np.float32],
    right: NDArray[np.float32],
    points: NDArray[np.int32],
    shifts: NDArray[np.float32],
    step: np.float32,
    row: NDArray[np.float32],
) -> None:
    """Write row ``i`` of step * (left.T @ right + reconstruction of points) to ``row`` (n,).

    ``left`` is (r, m), ``right`` (r, n), ``points`` (m, n) or (0, n) for none, ``shifts`` (6,) is
    what is added to the magnitude of points 0 to 4 and of all others, in steps. Terms are added in
    order of r, none is fused: the same bits on every machine.
    """
    n = row.size
    rank = left.shape[0]
    for j in range(n):
        row[j] = np.float32(0)
    k = 0
    while k + 4 <= rank:
        a = left[k, i]
        b = left[k + 1, i]
        c = left[k + 2, i]
        d = left[k + 3, i]
        for j in range(n):
            row[j] = (
                ((row[j] + a * right[k, j]) + b * right[k + 1, j]) + c * right[k + 2, j]
            ) + d * right[k + 3, j]
        k += 4
    while k < rank:
        a = left[k, i]
        for j in range(n):
            row[j] += a * right[k, j]
        k += 1
    if points.shape[0] > 0:
        for j in range(n):
            p = points[i, j]
            shift = shifts[min(abs(p), 5)]
            row[j] += np.float32(p) * np.float32(0.5) + (shift if p >= 0 else -shift)
    for j in range(n):
        row[j] *= step


@jit
def compose(
    left: NDArray[np.float32],
    right: NDArray[np.float32],
    points: NDArray[np.int32],
    shifts: NDArray[np.float32],
    step: np.float32,
    out: NDArray[np.float32],
) -> None:
    """Write all rows to ``out`` (m, n); the arguments are those of ``row_of``."""
    for i in range(out.shape[0]):
        row_of(i, left, right, points, shifts, step, out[i])


@jit
def compose_into(
    left: NDArray[np.float32],
    right: NDArray[np.float32],
    points: NDArray[np.int32],
    shifts: NDArray[np.float32],
    step: np.float32,
    weight: np.float64,
    total: NDArray[np.floating],
) -> None:
    """Add ``weight`` times all rows to ``total`` (m, n), float32 or float64, in its precision."""
    row = np.empty(total.shape[1], np.float32)
    factor = total.dtype.type(weight)
    for i in range(total.shape[0]):
        row_of(i, left, right, points, shifts, step, row)
        for j in range(row.size):
            total[i, j] += total.dtype.type(row[j]) * factor
