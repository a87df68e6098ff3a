"""Presets that send every element in a smaller number format."""

from __future__ import annotations

from dataclasses import dataclass

from flowerpress.compression.codec import Codec
from flowerpress.compression.errors import UnknownNameError
from flowerpress.compression.pipeline import Pipeline
from flowerpress.compression.presets.base import Preset
from flowerpress.compression.presets.values import grouping
from flowerpress.compression.spec import TensorSpec
from flowerpress.compression.stages import Bfloat, Float8, Half, Int8, Integers, Normal4

__all__ = ["Bf16", "Fp8", "Fp16", "Int4", "Int8PerChannel", "IntN", "Nf4"]


@dataclass(frozen=True)
class Fp16(Preset):
    """``fp16``: half precision. ``coder="rans"`` also entropy codes sign and exponent."""

    coder: str = "raw"

    def codec(self, spec: TensorSpec) -> Codec:
        """Return the half-precision pipeline."""
        return Pipeline([Half()], self.coder)


@dataclass(frozen=True)
class Bf16(Preset):
    """``bf16``: the upper half of float32 (Kalamkar et al., arXiv:1905.12322)."""

    coder: str = "raw"

    def codec(self, spec: TensorSpec) -> Codec:
        """Return the bfloat16 pipeline."""
        return Pipeline([Bfloat()], self.coder)


@dataclass(frozen=True)
class Fp8(Preset):
    """``fp8``: E4M3 or E5M2 with a scale per channel or tensor (arXiv:2209.05433, section 3)."""

    format: str = "e4m3"
    scale: str = "channel"
    coder: str = "rans"

    def codec(self, spec: TensorSpec) -> Codec:
        """Return the eight-bit float pipeline."""
        return Pipeline([Float8(self.format, _of_eight_bits(self.scale))], self.coder)


@dataclass(frozen=True)
class Int8PerChannel(Preset):
    """``int8``: one scale per output channel or tensor, levels entropy coded.

    ``stochastic``: rounded at random, right on average.
    """

    scale: str = "channel"
    coder: str = "rans"
    stochastic: bool = False

    def codec(self, spec: TensorSpec) -> Codec:
        """Return the 8-bit pipeline."""
        group = _of_eight_bits(self.scale)
        stage = (
            Int8(self.stochastic)
            if self.scale == "channel"
            else Integers(8, group, self.stochastic)
        )
        return Pipeline([stage], self.coder)


@dataclass(frozen=True)
class Int4(Preset):
    """``int4``: integers from -7 to 7, a scale per block, channel or tensor."""

    scale: str = "block"
    block: int = 64
    coder: str = "rans"

    def codec(self, spec: TensorSpec) -> Codec:
        """Return the 4-bit pipeline."""
        return Pipeline([Integers(4, grouping(self.scale, self.block))], self.coder)


@dataclass(frozen=True)
class IntN(Preset):
    """``intn``: integers of two to eight bits, a scale per channel, tensor or block.

    ``stochastic``: rounded at random, right on average.
    """

    bits: int = 6
    scale: str = "channel"
    block: int = 64
    coder: str = "rans"
    stochastic: bool = False

    def codec(self, spec: TensorSpec) -> Codec:
        """Return the pipeline of so many bits."""
        group = grouping(self.scale, self.block)
        return Pipeline([Integers(self.bits, group, self.stochastic)], self.coder)


@dataclass(frozen=True)
class Nf4(Preset):
    """``nf4``: NormalFloat of QLoRA in blocks (Dettmers et al., NeurIPS 2023, section 3)."""

    block: int = 64
    coder: str = "rans"

    def codec(self, spec: TensorSpec) -> Codec:
        """Return the NormalFloat pipeline."""
        return Pipeline([Normal4(grouping("block", self.block))], self.coder)


def _of_eight_bits(scale: str) -> int:
    if scale == "block":
        raise UnknownNameError("scale of eight-bit formats", scale, ("tensor", "channel"))
    return grouping(scale)
