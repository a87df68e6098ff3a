"""Presets that send some elements and leave out the rest."""

from __future__ import annotations

from dataclasses import dataclass

from flowerpress.compression.codec import Codec
from flowerpress.compression.pipeline import Pipeline
from flowerpress.compression.presets.base import Preset
from flowerpress.compression.spec import TensorSpec
from flowerpress.compression.stages import Half, Ternary, TopK

__all__ = ["SparseTernary", "TopKHalf"]


@dataclass(frozen=True)
class TopKHalf(Preset):
    """``topk``: the largest ``density`` of each tensor, values in half precision."""

    density: float = 0.01
    positions: str = "smallest"
    coder: str = "rans"

    def codec(self, spec: TensorSpec) -> Codec:
        """Return the top-k pipeline."""
        return Pipeline([TopK(self.density, self.positions), Half()], self.coder)


@dataclass(frozen=True)
class SparseTernary(Preset):
    """``stc``: top-k of each tensor, one magnitude, signs, gap-coded positions."""

    density: float = 0.01
    positions: str = "smallest"

    def codec(self, spec: TensorSpec) -> Codec:
        """Return the sparse ternary pipeline."""
        return Pipeline([TopK(self.density, self.positions), Ternary()], "pack")
