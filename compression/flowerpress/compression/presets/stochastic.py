"""Presets whose levels are drawn at random, right on average."""

from __future__ import annotations

from dataclasses import dataclass

from flowerpress.compression.codec import Codec
from flowerpress.compression.pipeline import Pipeline
from flowerpress.compression.presets.base import Preset
from flowerpress.compression.spec import TensorSpec
from flowerpress.compression.stages import Qsgd

__all__ = ["QsgdLevels"]


@dataclass(frozen=True)
class QsgdLevels(Preset):
    """``qsgd``: stochastic levels per bucket, unbiased, entropy coded."""

    levels: int = 7
    bucket: int = 512
    norm: str = "max"
    coder: str = "rans"

    def codec(self, spec: TensorSpec) -> Codec:
        """Return the QSGD pipeline."""
        return Pipeline([Qsgd(self.levels, self.bucket, self.norm)], self.coder)
