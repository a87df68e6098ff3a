"""What the rate-distortion codec decodes to: factors and points, not yet multiplied out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.kernels.compose import compose, compose_into
from flowerpress.compression.rd.views import FLAT, matrix_shape, tensor

__all__ = ["Composed"]

_LARGEST = 1e30


@dataclass(frozen=True)
class Composed:
    """step * (left.T @ right + points / 2), looked at as a tensor of ``shape``.

    ``left`` (r, m) and ``right`` (r, n) are float32, ``points`` (m, n) int32 on a grid of half
    steps or (0, n) for none, ``shifts`` (6,) float32 what reconstruction adds to the magnitude of
    points 0 to 4 and of all others. Where ``rows`` or ``columns`` (int64, increasing) are given,
    m and n count these, and all others are zero.
    """

    shape: tuple[int, ...]
    view: int
    step: np.float32
    left: NDArray[np.float32]
    right: NDArray[np.float32]
    points: NDArray[np.int32]
    shifts: NDArray[np.float32]
    rows: NDArray[np.int64] | None = None
    columns: NDArray[np.int64] | None = None

    def dense(self) -> NDArray[np.float32]:
        """Return all elements, flat, as a new array."""
        m, n = matrix_shape(self.shape, self.view)
        own = np.empty((self.left.shape[1], self.right.shape[1]), np.float32)
        compose(self.left, self.right, self.points, self.shifts, self.step, own)
        if self.rows is not None or self.columns is not None:
            out = np.zeros((m, n), np.float32)
            rows = np.arange(m) if self.rows is None else self.rows
            columns = np.arange(n) if self.columns is None else self.columns
            out[rows[:, None], columns] = own
            own = out
        return tensor(own, self.shape, self.view)

    def add_to(self, total: NDArray[Any], weight: float = 1.0) -> None:
        """Add ``weight`` times the elements to the flat array ``total`` in place.

        Usually without an array of all elements beside it.
        """
        fused = self.view == FLAT and self.rows is None and self.columns is None
        if fused and total.dtype in (np.float32, np.float64) and total.flags.c_contiguous:
            compose_into(
                self.left,
                self.right,
                self.points,
                self.shifts,
                self.step,
                np.float64(weight),
                total.reshape(matrix_shape(self.shape, FLAT)),
            )
            return
        values = self.dense()
        total += values if weight == 1.0 else values.astype(total.dtype, copy=False) * weight

    def is_finite(self) -> bool:
        """Whether no element is NaN or infinite."""
        if not (np.isfinite(self.left).all() and np.isfinite(self.right).all()):
            return False
        most = float(np.abs(self.points).max(initial=0)) / 2 + 1
        bound = _peak(self.left) @ _peak(self.right) + most
        # A cosine transform makes no value larger than all of its block together.
        if float(self.step) * bound < _LARGEST:
            return True
        return bool(np.isfinite(self.dense()).all())


def _peak(factor: NDArray[np.float32]) -> NDArray[np.float64]:
    peaks: NDArray[np.float64] = np.abs(factor).max(axis=1, initial=0).astype(np.float64)
    return peaks
