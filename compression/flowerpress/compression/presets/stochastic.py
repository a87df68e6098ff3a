"""Presets whose levels are drawn at random, right on average."""

from __future__ import annotations

from dataclasses import dataclass

from flowerpress.compression.codec import Codec
from flowerpress.compression.errors import ConfigError
from flowerpress.compression.pipeline import Pipeline
from flowerpress.compression.presets.base import Preset
from flowerpress.compression.spec import TensorSpec
from flowerpress.compression.stages import Qsgd

__all__ = ["QsgdLevels"]

MOST_BITS = 12


@dataclass(frozen=True)
class QsgdLevels(Preset):
    """``qsgd``: stochastic levels per bucket, unbiased, entropy coded.

    ``bits`` is another way to say ``levels``: 2**bits - 1, as many magnitudes as so many bits
    tell apart beside the sign.
    """

    levels: int = 7
    bucket: int = 512
    norm: str = "max"
    coder: str = "rans"
    bits: int | None = None

    def codec(self, spec: TensorSpec) -> Codec:
        """Return the QSGD pipeline."""
        levels = self.levels
        if self.bits is not None:
            if not 1 <= self.bits <= MOST_BITS:
                raise ConfigError(f"bits is {self.bits}; it must be from 1 to {MOST_BITS}")
            if self.levels != QsgdLevels.levels:
                raise ConfigError("give levels or bits, not both")
            levels = (1 << self.bits) - 1
        return Pipeline([Qsgd(levels, self.bucket, self.norm)], self.coder)
