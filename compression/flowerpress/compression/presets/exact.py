"""Presets that keep every bit."""

from __future__ import annotations

from dataclasses import dataclass

from flowerpress.compression.codec import Codec
from flowerpress.compression.pipeline import Pipeline
from flowerpress.compression.presets.base import RAW, Preset
from flowerpress.compression.spec import TensorSpec
from flowerpress.compression.stages import Exact

__all__ = ["Lossless", "NoCompression"]


@dataclass(frozen=True)
class NoCompression(Preset):
    """``none``: the tensor's own bytes."""

    def codec(self, spec: TensorSpec) -> Codec:
        """Return the raw pipeline."""
        return RAW


@dataclass(frozen=True)
class Lossless(Preset):
    """``lossless``: every bit kept, bytes by plane, then a coder.

    zstd has tables for every 128 kB and so for every plane, which saves 8% over ``rans`` with one.
    """

    coder: str = "zstd"

    def codec(self, spec: TensorSpec) -> Codec:
        """Return the exact pipeline with a coder."""
        return Pipeline([Exact(planes=True)], self.coder)
