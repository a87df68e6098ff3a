"""Presets of the rate-distortion codec."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from flowerpress.compression.codec import Codec
from flowerpress.compression.plan import Plan
from flowerpress.compression.presets.base import RAW, Preset
from flowerpress.compression.rd.codec import RateDistortion
from flowerpress.compression.rd.control import Budget, Controlled
from flowerpress.compression.rd.fast import Fast, fast_codec
from flowerpress.compression.spec import Manifest, TensorSpec

__all__ = ["RateDistortionBudget"]

_DEFAULT_NMSE = 0.2
# Magic, checksum and an update's own fields in the envelope, and room for long numbers in them.
_ENVELOPE = 96


@dataclass(frozen=True)
class RateDistortionBudget(Preset):
    """``rd``: low rank, trellis-coded levels, adaptive contexts; for the fewest bytes.

    One of ``step`` (absolute), ``relative`` (a step in units of the update's root mean square),
    ``max_nmse`` (never exceeded) and ``target_bytes`` (of the whole message, never exceeded).
    Without any: ``max_nmse=0.2``, which error feedback makes up for within a few rounds.
    ``fast``: neither low rank nor contexts; ten times the speed, several times the bytes.
    """

    uses_reference: ClassVar[bool] = True

    step: float | None = None
    relative: float | None = None
    max_nmse: float | None = None
    target_bytes: int | None = None
    fast: bool = False

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
        exact = [spec for spec in manifest.specs if not spec.is_float]
        overhead = _ENVELOPE + sum(spec.nbytes + 4 for spec in exact)
        codecs = tuple(open_codec if spec.is_float else RAW for spec in manifest.specs)
        budget = replace(self.budget, overhead=overhead)
        return Plan(codecs, Fast(budget) if self.fast else Controlled(budget), open_codec)
