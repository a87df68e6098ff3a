"""Presets that send some elements and leave out the rest."""

from __future__ import annotations

from dataclasses import dataclass

from flowerpress.compression.codec import Codec
from flowerpress.compression.errors import UnknownNameError
from flowerpress.compression.pipeline import Pipeline
from flowerpress.compression.plan import Plan
from flowerpress.compression.presets.base import Preset, check_scope, joint_plan
from flowerpress.compression.presets.values import values_stage
from flowerpress.compression.selection import GlobalTopK
from flowerpress.compression.spec import Manifest, TensorSpec
from flowerpress.compression.stages import (
    LargestRows,
    RandomK,
    Rows,
    Ternary,
    Threshold,
    TopK,
)

__all__ = [
    "RandomSubset",
    "RowSparse",
    "SparseTernary",
    "Structured",
    "ThresholdValues",
    "TopKValues",
]

SCALINGS = ("unbiased", "plain")


@dataclass(frozen=True)
class TopKValues(Preset):
    """``topk``: the largest ``density`` of each tensor, or of all, and their values in a format."""

    density: float = 0.01
    scope: str = "tensor"
    values: str = "fp16"
    positions: str = "smallest"
    coder: str = "rans"

    def codec(self, spec: TensorSpec) -> Codec:
        """Return the top-k pipeline."""
        check_scope(self.scope)
        stages = [TopK(self.density, self.positions), values_stage(self.values)]
        return Pipeline(stages, self.coder)

    def plan(self, manifest: Manifest) -> Plan:
        """Return one codec for each tensor, and with ``scope=global`` the rule over all."""
        if self.scope != "global":
            return super().plan(manifest)
        codec = self.codec(TensorSpec("all", ()))
        assert isinstance(codec, Pipeline)
        return joint_plan(manifest, GlobalTopK(codec), codec)


@dataclass(frozen=True)
class SparseTernary(Preset):
    """``stc``: top-k of each tensor, one magnitude, signs, gap-coded positions."""

    density: float = 0.01
    positions: str = "smallest"

    def codec(self, spec: TensorSpec) -> Codec:
        """Return the sparse ternary pipeline."""
        return Pipeline([TopK(self.density, self.positions), Ternary()], "pack")


@dataclass(frozen=True)
class ThresholdValues(Preset):
    """``threshold``: what is above ``at``, in units of the tensor's rms or as it is."""

    at: float = 3.0
    unit: str = "rms"
    values: str = "fp16"
    positions: str = "smallest"
    coder: str = "rans"

    def codec(self, spec: TensorSpec) -> Codec:
        """Return the threshold pipeline."""
        stages = [Threshold(self.at, self.unit, self.positions), values_stage(self.values)]
        return Pipeline(stages, self.coder)


@dataclass(frozen=True)
class RandomSubset(Preset):
    """``randomk``: a random subset of each tensor; a seed is sent in place of positions."""

    density: float = 0.05
    scale: str = "unbiased"
    values: str = "fp32"
    coder: str = "rans"

    def codec(self, spec: TensorSpec) -> Codec:
        """Return the random-k pipeline."""
        if self.scale not in SCALINGS:
            raise UnknownNameError("scale of randomk", self.scale, SCALINGS)
        stages = [RandomK(self.density, self.scale == "unbiased"), values_stage(self.values)]
        return Pipeline(stages, self.coder)


@dataclass(frozen=True)
class RowSparse(Preset):
    """``rowsparse``: the rows that are not zero, of matrices and what has more axes."""

    values: str = "fp16"
    coder: str = "rans"

    def codec(self, spec: TensorSpec) -> Codec:
        """Return the pipeline of rows, or of values alone for tensors of fewer than two axes."""
        if len(spec.shape) < 2:
            return Pipeline([values_stage(self.values)], self.coder)
        return Pipeline([Rows(), values_stage(self.values, _row(spec))], self.coder)


@dataclass(frozen=True)
class Structured(Preset):
    """``structured``: the rows or filters of largest norm, of matrices and what has more axes."""

    density: float = 0.1
    values: str = "fp16"
    coder: str = "rans"

    def codec(self, spec: TensorSpec) -> Codec:
        """Return the pipeline of rows, or of values alone for tensors of fewer than two axes."""
        rows = LargestRows(self.density)
        if len(spec.shape) < 2:
            return Pipeline([values_stage(self.values)], self.coder)
        return Pipeline([rows, values_stage(self.values, _row(spec))], self.coder)


def _row(spec: TensorSpec) -> int:
    return spec.size // spec.shape[0] if spec.size else 0
