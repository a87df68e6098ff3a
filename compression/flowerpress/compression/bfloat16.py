"""bfloat16: the upper half of a float32, for which NumPy has no dtype.

In memory such tensors are float32 arrays whose lower sixteen bits are zero, so that every codec
works on them; two bytes an element exist only on the wire and in files.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["from_bits", "rounded", "to_bits"]

_HALF = np.uint32(0x7FFF)


def to_bits(values: NDArray[Any]) -> NDArray[np.uint16]:
    """Return the bfloat16 patterns of ``values`` (any shape and real dtype), to nearest even.

    float64 is rounded to float32 first. What is too large becomes infinite, and NaN stays NaN.
    """
    with np.errstate(over="ignore"):
        bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    nan = (bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
    # Adding just under half a step carries into the upper half where that is nearer; the last bit
    # kept decides ties. No finite pattern overflows 32 bits by this.
    upper = (bits + (_HALF + ((bits >> np.uint32(16)) & np.uint32(1)))) >> np.uint32(16)
    if nan.any():
        upper = np.where(nan, (bits >> np.uint32(16)) | np.uint32(0x40), upper)
    return upper.astype(np.uint16).reshape(values.shape)


def from_bits(bits: NDArray[np.unsignedinteger[Any]]) -> NDArray[np.float32]:
    """Return the float32 values of bfloat16 patterns (16 bits each), as a new array."""
    wide = np.left_shift(bits, 16, dtype=np.uint32)
    return np.asarray(wide).view(np.float32)


def rounded(values: NDArray[Any]) -> NDArray[np.float32]:
    """Return ``values`` as float32 that bfloat16 holds exactly."""
    return from_bits(to_bits(values))
