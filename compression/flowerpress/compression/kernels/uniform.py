"""Rounding to a uniform grid, and back."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.kernels.jit import jit

__all__ = ["expand", "round_to_grid"]


@jit
def round_to_grid(
    x: NDArray[np.float32],
    inverse: np.float32,
    bias: np.float32,
    middle: int,
    out: NDArray[np.unsignedinteger],
) -> None:
    """Write ``middle`` plus the level of every element: floor(|x| * inverse + bias) with its sign.

    ``x`` is flat; no level may lie further than ``middle`` from zero. A ``bias`` below one half
    rounds towards zero.
    """
    for i in range(x.size):
        level = np.floor(abs(x[i]) * inverse + bias)
        out[i] = np.int32(middle) + np.int32(level if x[i] >= np.float32(0) else -level)


@jit
def expand(
    levels: NDArray[np.unsignedinteger], middle: int, step: np.float32, out: NDArray[np.float32]
) -> None:
    """Write step * (level - middle) to ``out``."""
    for i in range(levels.size):
        out[i] = np.float32(np.int32(levels[i]) - np.int32(middle)) * step
