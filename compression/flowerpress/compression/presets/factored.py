"""Presets that send a matrix as thin factors, alone or beside a quantized matrix."""

from __future__ import annotations

from dataclasses import dataclass

from flowerpress.compression.codec import Codec
from flowerpress.compression.errors import ConfigError
from flowerpress.compression.factors import FactorFormat
from flowerpress.compression.lowrank import LowRank
from flowerpress.compression.pipeline import Pipeline
from flowerpress.compression.powersgd import PowerSgd
from flowerpress.compression.presets.base import RAW, Preset
from flowerpress.compression.spec import TensorSpec
from flowerpress.compression.stages import Codebook

__all__ = ["PowerFactors", "QuantizedLowRank"]

MOST_BITS = 8
MOST_ROUNDS = 100


@dataclass(frozen=True)
class PowerFactors(Preset):
    """``powersgd``: rank-r factors from a warm start (Vogels et al., NeurIPS 2019).

    As there, tensors of one axis are sent exactly, and so is a matrix whose factors are not
    smaller.
    """

    rank: int = 4
    factors: str = "fp16"
    coder: str = "rans"

    def codec(self, spec: TensorSpec) -> Codec:
        """Return the factors' codec, or the exact one."""
        form = FactorFormat.named(self.rank, self.factors, self.coder)
        whole = len(spec.shape) < 2 or form.size(spec) >= 4 * spec.size
        return RAW if whole else PowerSgd(form)


@dataclass(frozen=True)
class QuantizedLowRank(Preset):
    """``lowrank``: a few bits a parameter, and low-rank factors of what they lose.

    ZeroQuant-V2's low-rank compensation (Yao et al., arXiv:2303.08302, section 5) over the best
    ``2**bits`` levels of each tensor; with ``rounds`` the two take turns as in LQ-LoRA (Guo et
    al., ICLR 2024, algorithm 1). Tensors of one axis, and matrices whose factors are no smaller,
    are quantized only.
    """

    bits: int = 2
    rank: int = 4
    rounds: int = 1
    factors: str = "fp16"
    coder: str = "rans"

    def codec(self, spec: TensorSpec) -> Codec:
        """Return the codec of both parts, or the quantizer."""
        if not 1 <= self.bits <= MOST_BITS:
            raise ConfigError(f"bits is {self.bits}; it must be from 1 to {MOST_BITS}")
        if not 0 <= self.rounds <= MOST_ROUNDS:
            raise ConfigError(f"rounds is {self.rounds}; it must be from 0 to {MOST_ROUNDS}")
        form = FactorFormat.named(self.rank, self.factors, self.coder)
        base = Pipeline([Codebook(1 << self.bits, "optimal")], self.coder)
        small = len(spec.shape) < 2 or form.size(spec) >= 4 * spec.size
        return base if small else LowRank(base, form, self.rounds)
