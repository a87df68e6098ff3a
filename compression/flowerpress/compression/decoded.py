"""What a decoder returns: values that can be added to a sum without becoming dense."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Decoded", "Dense", "Sparse"]


class Decoded(Protocol):
    """What every decoder returns."""

    def dense(self) -> NDArray[Any]:
        """Return all elements, flat."""

    def add_to(self, total: NDArray[Any], weight: float = 1.0) -> None:
        """Add ``weight`` times the elements to the flat array ``total`` in place."""

    def is_finite(self) -> bool:
        """Whether no element is NaN or infinite."""


@dataclass(frozen=True)
class Dense:
    """All ``n`` elements of a tensor, flat, in the tensor's own dtype or float32."""

    values: NDArray[Any]

    def dense(self) -> NDArray[Any]:
        """Return all elements, flat; not a copy."""
        return self.values

    def add_to(self, total: NDArray[Any], weight: float = 1.0) -> None:
        """Add ``weight`` times the elements to the flat array ``total`` in place."""
        total += (
            self.values if weight == 1.0 else self.values.astype(total.dtype, copy=False) * weight
        )

    def is_finite(self) -> bool:
        """Whether no element is NaN or infinite."""
        return bool(np.isfinite(self.values).all())


@dataclass(frozen=True)
class Sparse:
    """``k`` of ``size`` elements; the others are zero.

    ``positions`` is int64 and strictly increasing, ``values`` float32, both of length ``k``.
    """

    positions: NDArray[np.int64]
    values: NDArray[np.float32]
    size: int

    def dense(self) -> NDArray[np.float32]:
        """Return all elements, flat, as a new array."""
        out = np.zeros(self.size, np.float32)
        out[self.positions] = self.values
        return out

    def add_to(self, total: NDArray[Any], weight: float = 1.0) -> None:
        """Add ``weight`` times the elements to the flat array ``total`` in place."""
        scaled = (
            self.values if weight == 1.0 else self.values.astype(total.dtype, copy=False) * weight
        )
        total[self.positions] += scaled

    def is_finite(self) -> bool:
        """Whether no element is NaN or infinite."""
        return bool(np.isfinite(self.values).all())
