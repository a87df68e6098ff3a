"""Presets that send little more than signs."""

from __future__ import annotations

from dataclasses import dataclass

from flowerpress.compression.codec import Codec
from flowerpress.compression.errors import ConfigError
from flowerpress.compression.pipeline import Pipeline
from flowerpress.compression.plan import Plan
from flowerpress.compression.presets.base import Preset, check_scope, joint_plan
from flowerpress.compression.selection import TaskVector, TaskVectorSigns
from flowerpress.compression.spec import Manifest, TensorSpec
from flowerpress.compression.stages import ChunkTopK, Codebook, Ternary

__all__ = ["ComPeft", "EfSign", "SparseLoCo"]


@dataclass(frozen=True)
class EfSign(Preset):
    """``efsign``: signs times the mean magnitude of the tensor.

    EF-signSGD, Karimireddy et al., ICML 2019, algorithm 1; it needs its error feedback.
    """

    coder: str = "pack"

    def codec(self, spec: TensorSpec) -> Codec:
        """Return the sign pipeline."""
        return Pipeline([Ternary()], self.coder)


@dataclass(frozen=True)
class ComPeft(Preset):
    """``compeft``: top-k, its signs times alpha standard deviations of everything.

    ComPEFT, Yadav et al., arXiv:2311.13171, section 2.2. ``scope=global`` takes the update as one
    task vector, as the paper does; ``scope=tensor`` takes every tensor for itself. ``alpha`` is by
    default where the magnitude meets the kept values; the paper tunes it on validation data.
    """

    density: float = 0.05
    alpha: float = 2.5
    scope: str = "global"
    positions: str = "smallest"

    def codec(self, spec: TensorSpec) -> TaskVector:
        """Return the pipeline of one tensor."""
        check_scope(self.scope)
        return TaskVector(self.density, self.alpha, self.positions)

    def plan(self, manifest: Manifest) -> Plan:
        """Return one codec for each tensor, and with ``scope=global`` the rule over all."""
        if self.scope != "global":
            return super().plan(manifest)
        codec = self.codec(TensorSpec("all", ()))
        return joint_plan(manifest, TaskVectorSigns(codec), codec)


@dataclass(frozen=True)
class SparseLoCo(Preset):
    """``sparseloco``: the top ``k`` of each ``chunk``, values in two bits, error feedback.

    Sarfi et al., arXiv:2508.15706, sections 3 and 4. The levels are the best four for the kept
    values of the tensor (k-means); positions are coded as gaps, where the paper counts 12 bits.
    """

    k: int = 64
    chunk: int = 4096
    bits: int = 2
    positions: str = "smallest"
    coder: str = "rans"

    def codec(self, spec: TensorSpec) -> Codec:
        """Return the chunked top-k pipeline."""
        if not 1 <= self.bits <= 8:
            raise ConfigError(f"bits is {self.bits}; it must be from 1 to 8")
        levels = Codebook(1 << self.bits, "optimal")
        return Pipeline([ChunkTopK(self.k, self.chunk, self.positions), levels], self.coder)
