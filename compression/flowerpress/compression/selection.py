"""Entries chosen over all tensors of an update at once.

A decoder sees ordinary pipelines: who chose the entries of a tensor is the encoder's business.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.codec import Context
from flowerpress.compression.errors import ConfigError, EncodeError
from flowerpress.compression.kernels.select import best, largest_over, order_keys
from flowerpress.compression.moments import deviation
from flowerpress.compression.pipeline import Pipeline, lossy_input
from flowerpress.compression.plan import Coded, Joint
from flowerpress.compression.spec import TensorSpec
from flowerpress.compression.stages import Picked, Stage, Ternary, TopK
from flowerpress.compression.stages.topk import kept, relevance

__all__ = ["GlobalTopK", "TaskVector", "TaskVectorSigns"]

Flat = NDArray[np.float32]


class GlobalTopK(Joint):
    """Exactly ``k = max(1, round(density * n))`` of the n entries of all tensors.

    Those of largest magnitude, ties by tensor and then by index (Aji and Heafield, EMNLP 2017,
    section 3, "global threshold"); by the caller's relevance where it is given for all tensors.

    Args:
        codec: starts with a ``TopK``, whose density and mode of positions count; the stages and
            the coder behind it code the kept values of each tensor.
    """

    def __init__(self, codec: Pipeline) -> None:
        first = codec.stages[0]
        if not isinstance(first, TopK) or first.density is None:
            raise ConfigError(f"{codec.describe()} does not start with a top-k that encodes")
        self.codec = codec
        self.density = first.density
        self.positions = first.positions

    def encode(
        self,
        specs: Sequence[TensorSpec],
        tensors: Sequence[NDArray[Any]],
        contexts: Sequence[Context],
    ) -> list[Coded]:
        """Choose over all, then code each tensor; memory: the positions."""
        flats = [lossy_input(x, spec) for x, spec in zip(tensors, specs, strict=True)]
        chosen = self._choose(flats, specs, contexts)
        behind = self.stages_behind(flats, specs)
        out = []
        for spec, x, context, where in zip(specs, flats, contexts, chosen, strict=True):
            picked = Picked(where, self.positions, f"{self.codec.stages[0].describe()} of all")
            codec = Pipeline([picked, *behind], self.codec.coder)
            out.append(Coded(codec, codec.encode(x.reshape(spec.shape), spec, context)))
        return out

    def stages_behind(self, flats: Sequence[Flat], specs: Sequence[TensorSpec]) -> Sequence[Stage]:
        """Return the stages that code the kept values, the same for every tensor."""
        del flats, specs
        return self.codec.stages[1:]

    def _choose(
        self, flats: Sequence[Flat], specs: Sequence[TensorSpec], contexts: Sequence[Context]
    ) -> list[NDArray[np.int64]]:
        k = kept(sum(x.size for x in flats), self.density)
        if all(context.relevance is None for context in contexts):
            return largest_over(flats, k)
        keys = []
        for spec, context in zip(specs, contexts, strict=True):
            scores = relevance(spec, context)
            if scores is None:
                raise EncodeError(
                    spec.name, "no relevance, and others have one: give it for all tensors or none"
                )
            keys.append(order_keys(scores))
        return best(keys, k)


class TaskVector(Pipeline):
    """ComPEFT of one tensor: the signs of its top-k, times ``alpha`` standard deviations of all.

    Yadav et al., arXiv:2311.13171 (ComPEFT), section 2.2 and algorithm 1: the deviation is that of
    the *whole* tensor, mean subtracted, not of the kept entries. On the wire this is a top-k
    followed by ``ternary``.
    """

    def __init__(self, density: float = 0.05, alpha: float = 2.5, positions: str = "smallest"):
        if not (alpha > 0 and math.isfinite(alpha)):
            raise ConfigError(f"alpha is {alpha}; it must be above 0, and finite")
        super().__init__([TopK(density, positions), Ternary()], "pack")
        self.alpha = alpha

    def encode(self, x: NDArray[Any], spec: TensorSpec, context: Context) -> bytes:
        """Return the body: k and positions, the magnitude, the signs."""
        flat = lossy_input(x, spec)
        signs = Ternary(_magnitude(self.alpha, [flat], [spec]))
        return Pipeline([self.stages[0], signs], self.coder).encode(x, spec, context)

    def describe(self) -> str:
        """Return the stages, and the multiple of the deviation."""
        return f"{self.stages[0].describe()} > signs of {self.alpha:g} deviations > pack"


class TaskVectorSigns(GlobalTopK):
    """ComPEFT of all tensors as one task vector, which is how its paper defines it."""

    def __init__(self, codec: TaskVector) -> None:
        super().__init__(codec)
        self.alpha = codec.alpha

    def stages_behind(self, flats: Sequence[Flat], specs: Sequence[TensorSpec]) -> Sequence[Stage]:
        """Return the signs with a magnitude from all tensors."""
        return [Ternary(_magnitude(self.alpha, flats, specs))]


def _magnitude(alpha: float, flats: Sequence[Flat], specs: Sequence[TensorSpec]) -> float:
    magnitude = alpha * deviation(flats)
    if magnitude > float(np.finfo(np.float32).max):
        raise EncodeError(specs[0].name, f"{alpha:g} deviations do not fit a float32; clip it")
    return magnitude
