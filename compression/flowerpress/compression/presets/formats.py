"""Presets that send every element in a smaller number format."""

from __future__ import annotations

from dataclasses import dataclass

from flowerpress.compression.codec import Codec
from flowerpress.compression.pipeline import Pipeline
from flowerpress.compression.presets.base import Preset
from flowerpress.compression.spec import TensorSpec
from flowerpress.compression.stages import Half, Int8

__all__ = ["Fp16", "Int8PerChannel"]


@dataclass(frozen=True)
class Fp16(Preset):
    """``fp16``: half precision. ``coder="rans"`` also entropy codes sign and exponent."""

    coder: str = "raw"

    def codec(self, spec: TensorSpec) -> Codec:
        """Return the half-precision pipeline."""
        return Pipeline([Half()], self.coder)


@dataclass(frozen=True)
class Int8PerChannel(Preset):
    """``int8``: one scale per output channel, levels entropy coded."""

    coder: str = "rans"

    def codec(self, spec: TensorSpec) -> Codec:
        """Return the 8-bit pipeline."""
        return Pipeline([Int8()], self.coder)
