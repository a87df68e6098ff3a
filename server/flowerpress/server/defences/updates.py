"""Updates as changes: how large they are, and multiples of them; sparse ones stay sparse."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression import Decoded, Dense, Manifest, NonFiniteError, Sparse
from flowerpress.compression.mass import LARGEST_MASS
from flowerpress.protos import Kind
from flowerpress.server.intake import Received

__all__ = ["Scaled", "as_change", "mass_of", "norm_of", "scaled"]

# Elements that are added up at a time, in double precision.
_BLOCK = 1 << 16


@dataclass(frozen=True)
class Scaled:
    """``factor`` times what was decoded; multiplied out only where it is added."""

    decoded: Decoded
    factor: float

    def dense(self) -> NDArray[Any]:
        """Return all elements, flat, as a new array."""
        values = self.decoded.dense()
        out: NDArray[Any] = np.multiply(values, self.factor, dtype=values.dtype)
        return out

    def add_to(self, total: NDArray[Any], weight: float = 1.0) -> None:
        """Add ``weight`` times the elements to the flat array ``total`` in place."""
        self.decoded.add_to(total, weight * self.factor)

    def is_finite(self) -> bool:
        """Whether no element is NaN or infinite."""
        return math.isfinite(self.factor) and self.decoded.is_finite()


def as_change(update: Received, manifest: Manifest, held: Mapping[str, NDArray[Any]]) -> Received:
    """Return ``update`` as the change from ``held``, the model that its client trained from.

    Tensors of integers stay values: a difference of counters means nothing.

    Raises:
        NonFiniteError: the change overflows.
    """
    if update.kind is Kind.DELTA:
        return update
    out: list[tuple[int, Decoded]] = []
    for index, decoded in update.decoded:
        spec = manifest.specs[index]
        if spec.is_float:
            wide = np.float64 if spec.dtype == "float64" else np.float32
            with np.errstate(over="ignore"):
                change = decoded.dense().astype(wide) - held[spec.name].reshape(-1)
            decoded = Dense(change)
            if not decoded.is_finite():
                raise NonFiniteError(f"frame[{spec.name!r}]", "the change from the model overflows")
        out.append((index, decoded))
    return Received(Kind.DELTA, tuple(out), update.sequence)


def norm_of(change: Received, manifest: Manifest) -> float:
    """Return the Euclidean norm of a change over all tensors of floats, or the largest float."""
    # Squares of doubles overflow long before their norm does.
    for scale in (1.0, 2.0**-600):
        with np.errstate(over="ignore"):
            squares = sum(
                float((scale * block) @ (scale * block)) for block in _floats(change, manifest)
            )
        if math.isfinite(squares):
            break
    return min(math.sqrt(squares) / scale, sys.float_info.max)


def scaled(change: Received, factor: float, manifest: Manifest) -> Received:
    """Return ``factor`` times the change; tensors of integers stay as they are."""
    return Received(
        change.kind,
        tuple(
            (i, Scaled(decoded, factor) if manifest.specs[i].is_float else decoded)
            for i, decoded in change.decoded
        ),
        change.sequence,
    )


def mass_of(change: Received, manifest: Manifest) -> float:
    """Return the sum of absolute values of a change over all tensors of floats, up to a limit."""
    with np.errstate(over="ignore"):
        mass = sum(float(np.abs(block).sum()) for block in _floats(change, manifest))
    return min(mass, LARGEST_MASS)


def _floats(change: Received, manifest: Manifest) -> Iterator[NDArray[np.float64]]:
    """Yield the floats that may not be zero, in double precision and a block at a time."""
    for index, decoded in change.decoded:
        if manifest.specs[index].is_float:
            values = decoded.values if isinstance(decoded, Sparse) else decoded.dense()
            for start in range(0, len(values), _BLOCK):
                yield values[start : start + _BLOCK].astype(np.float64)
