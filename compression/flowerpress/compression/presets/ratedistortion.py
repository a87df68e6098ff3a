"""Presets of the rate-distortion codec."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from flowerpress.compression.codec import Codec
from flowerpress.compression.errors import ConfigError
from flowerpress.compression.plan import Joint, Plan, Together
from flowerpress.compression.presets.base import RAW, Preset, check_scope, joint_plan
from flowerpress.compression.rd.codec import RateDistortion
from flowerpress.compression.rd.control import Budget, Controlled
from flowerpress.compression.rd.fast import Fast, fast_codec
from flowerpress.compression.spec import Manifest, TensorSpec

__all__ = ["ENVELOPE", "RateDistortionBudget"]

_DEFAULT_NMSE = 0.2
ENVELOPE = 80
"""Magic, checksum and an update's own fields in the envelope, and room for long numbers in them."""


@dataclass(frozen=True)
class RateDistortionBudget(Preset):
    """``rd``: low rank, trellis-coded levels, adaptive contexts; for the fewest bytes.

    One of ``step`` (absolute), ``relative`` (a step in units of the update's root mean square),
    ``max_nmse`` (never exceeded) and ``target_bytes`` (of the whole message, never exceeded).
    Without any: ``max_nmse=0.2``, which error feedback makes up for within a few rounds.
    ``fast``: neither low rank nor contexts; ten times the speed, several times the bytes.
    ``scope=tensor`` takes every tensor by itself, with its own root mean square and error.
    ``weight`` is how much the squared error counts beside that of tensors with other weights
    under one budget: the step is divided by its root.
    """

    step: float | None = None
    relative: float | None = None
    max_nmse: float | None = None
    target_bytes: int | None = None
    fast: bool = False
    scope: str = "global"
    weight: float = 1.0

    def __post_init__(self) -> None:
        check_scope(self.scope)
        if not 0 < self.weight < math.inf:
            raise ConfigError(f"weight is {self.weight}; it must be positive and finite")
        if self.scope == "tensor" and self.target_bytes is not None:
            raise ConfigError("target_bytes is for the whole message: it needs scope=global")
        if self.fast and self.weight != 1:
            raise ConfigError("fast=true has no weights")

    @property
    def uses_reference(self) -> bool:
        """Whether bases of the last global change make it shorter."""
        return not self.fast

    @property
    def budget(self) -> Budget:
        """The budget that the parameters stand for."""
        given = (self.step, self.relative, self.max_nmse, self.target_bytes)
        none = all(value is None for value in given)
        return Budget(
            self.step, self.relative, _DEFAULT_NMSE if none else self.max_nmse, self.target_bytes
        )

    def codec(self, spec: TensorSpec) -> Codec:
        """Return the codec whose step the whole update decides about."""
        step = self.budget.step or 1.0
        return fast_codec(step) if self.fast else RateDistortion(step)

    def plan(self, manifest: Manifest) -> Plan:
        """Return a plan in which one step is found for all floating-point tensors together."""
        open_codec = self.codec(TensorSpec("any", ()))
        if self.scope == "tensor":
            codecs = tuple(open_codec if spec.is_float else RAW for spec in manifest.specs)
            own = [i for i, spec in enumerate(manifest.specs) if spec.is_float]
            return Plan(codecs, tuple(Together(self._rule(manifest, 0), (i,)) for i in own))
        exact = [spec for spec in manifest.specs if not spec.is_float]
        overhead = ENVELOPE + sum(spec.nbytes + 4 for spec in exact)
        return joint_plan(manifest, self._rule(manifest, overhead), open_codec)

    def _rule(self, manifest: Manifest, overhead: int) -> Joint:
        budget = replace(self.budget, overhead=overhead)
        if self.fast:
            return Fast(budget)
        names = [spec.name for spec in manifest.specs if self.weight != 1]
        return Controlled(budget, tuple((name, self.weight) for name in names))
