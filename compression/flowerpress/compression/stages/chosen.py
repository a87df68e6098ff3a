"""Other ways to choose the entries that ``TopK`` sends: on the wire they are the same stage.

A decoder reads k and the positions and need not know who chose them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.codec import Context
from flowerpress.compression.errors import ConfigError
from flowerpress.compression.kernels.select import largest_in_chunks, order_keys
from flowerpress.compression.moments import rms
from flowerpress.compression.spec import TensorSpec
from flowerpress.compression.stages.topk import TopK, relevance

__all__ = ["UNITS", "ChunkTopK", "Picked", "Threshold"]

UNITS = ("rms", "absolute")


class Threshold(TopK):
    """The entries whose magnitude is above a threshold, however many that are.

    ``unit`` is ``absolute``, or ``rms`` for multiples of the tensor's root mean square. A fixed
    threshold is that of Strom, Interspeech 2015, section 3; Sahu et al., NeurIPS 2021, section 4,
    show that with error feedback it needs fewer entries than top-k for the same total error.
    """

    name = "threshold"

    def __init__(self, at: float = 3.0, unit: str = "rms", positions: str = "smallest") -> None:
        super().__init__(None, positions)
        if not (at >= 0 and math.isfinite(at)):
            raise ConfigError(f"at is {at}; a threshold must be 0 or more, and finite")
        if unit not in UNITS:
            raise ConfigError(f"unit is {unit!r}; it must be one of {', '.join(UNITS)}")
        self.at = at
        self.unit = unit

    def choose(self, x: NDArray[Any], spec: TensorSpec, context: Context) -> NDArray[np.int64]:
        """Return the positions above the threshold; a relevance plays no part."""
        threshold = self.at * (rms(x) if self.unit == "rms" else 1.0)
        # The float32 at or below the threshold: no float32 lies between the two.
        with np.errstate(over="ignore"):
            single = np.float32(threshold)
        if float(single) > threshold:  # in double precision
            single = np.float32(np.nextafter(single, np.float32(0)))
        return np.flatnonzero(np.abs(x) > single)

    def describe(self) -> str:
        """Return the threshold."""
        return f"above {self.at:g} rms" if self.unit == "rms" else f"above {self.at:g}"


class ChunkTopK(TopK):
    """The ``k`` largest entries of every ``chunk`` consecutive ones, ties by index.

    The last chunk, if shorter, keeps its share, and at least one. Source: Sarfi et al.,
    arXiv:2508.15706 (SparseLoCo), section 3, which cuts matrices into square tiles; here a chunk
    is what is consecutive in memory.
    """

    name = "chunk-topk"

    def __init__(self, k: int = 64, chunk: int = 4096, positions: str = "smallest") -> None:
        super().__init__(None, positions)
        if not 1 <= chunk < 1 << 31:
            raise ConfigError(f"chunk is {chunk}; it must be from 1 to 2**31 - 1")
        if not 1 <= k <= chunk:
            raise ConfigError(f"k is {k}; it must be from 1 to chunk, which is {chunk}")
        self.k = k
        self.chunk = chunk

    def choose(self, x: NDArray[Any], spec: TensorSpec, context: Context) -> NDArray[np.int64]:
        """Return the positions of the largest of each chunk, or of the most relevant."""
        scores = relevance(spec, context)
        keys = np.abs(x).view(np.uint32) if scores is None else order_keys(scores)
        whole, rest = divmod(x.size, self.chunk)
        counts = np.full(whole + (rest > 0), self.k, np.int64)
        if rest:
            counts[-1] = max(1, round(self.k * rest / self.chunk))
        return largest_in_chunks(keys, self.chunk, counts)

    def describe(self) -> str:
        """Return how many of how many."""
        return f"top {self.k} of each {self.chunk}"


class Picked(TopK):
    """Positions that were chosen beforehand, such as over all tensors of a model."""

    name = "picked"

    def __init__(
        self, where: NDArray[np.int64], positions: str = "smallest", label: str = "picked"
    ) -> None:
        super().__init__(None, positions)
        self.where = where
        self.label = label

    def choose(self, x: NDArray[Any], spec: TensorSpec, context: Context) -> NDArray[np.int64]:
        """Return the positions as given, int64, sorted."""
        return self.where

    def describe(self) -> str:
        """Return who chose."""
        return self.label
