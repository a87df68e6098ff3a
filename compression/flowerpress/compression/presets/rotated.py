"""Presets that rotate at random before they round."""

from __future__ import annotations

from dataclasses import dataclass

from flowerpress.compression.codec import Codec
from flowerpress.compression.pipeline import Pipeline
from flowerpress.compression.presets.base import RAW, Preset
from flowerpress.compression.spec import TensorSpec
from flowerpress.compression.stages import Eden

__all__ = ["Drive", "EdenLevels"]

FEWEST = 128
"""Smaller tensors are sent exactly: they are cheap, and too small to become normal."""


@dataclass(frozen=True)
class EdenLevels(Preset):
    """``eden``: random rotation and Lloyd-Max levels, unbiased (Vargaftik et al., ICML 2022)."""

    bits: float = 2.0
    scale: str = "unbiased"
    rotations: int = 2
    coder: str = "rans"

    def codec(self, spec: TensorSpec) -> Codec:
        """Return the EDEN pipeline."""
        codec = Pipeline([Eden(self.bits, self.scale, self.rotations)], self.coder)
        return RAW if spec.size < FEWEST else codec


@dataclass(frozen=True)
class Drive(Preset):
    """``drive``: signs of a random rotation and one scale (Vargaftik et al., NeurIPS 2021)."""

    scale: str = "unbiased"
    rotations: int = 2

    def codec(self, spec: TensorSpec) -> Codec:
        """Return the DRIVE pipeline."""
        codec = Pipeline([Eden(1, self.scale, self.rotations)], "pack")
        return RAW if spec.size < FEWEST else codec
