"""The mass of an update or a residual: the sum of absolute values, which ledgers count in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.decoded import Decoded
from flowerpress.compression.spec import Manifest

__all__ = ["LARGEST_MASS", "mass", "mass_of_update"]

LARGEST_MASS = 1e300
"""Ledgers of a server count no more at once, so that no sum over clients and rounds overflows."""


def mass(arrays: Mapping[str, NDArray[Any]]) -> float:
    """Return the sum of absolute values of all elements, in double precision."""
    return float(sum(np.abs(array).sum(dtype=np.float64) for array in arrays.values()))


def mass_of_update(manifest: Manifest, decoded: Iterable[tuple[int, Decoded]]) -> float:
    """Return the mass of a decoded update: of its floating-point tensors, for no others are owed.

    Args:
        manifest: the tensors.
        decoded: pairs of a tensor's index and what it decodes to.
    """
    return float(
        sum(
            np.abs(values.dense()).sum(dtype=np.float64)
            for index, values in decoded
            if manifest.specs[index].is_float
        )
    )
