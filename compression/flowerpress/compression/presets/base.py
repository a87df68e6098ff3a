"""What every preset is: a rule from tensors to codecs."""

from __future__ import annotations

from abc import ABC, abstractmethod

from flowerpress.compression.codec import Codec
from flowerpress.compression.errors import UnknownNameError
from flowerpress.compression.pipeline import Pipeline
from flowerpress.compression.plan import Joint, Plan, Together
from flowerpress.compression.spec import Manifest, TensorSpec
from flowerpress.compression.stages import Exact

__all__ = ["RAW", "SCOPES", "Preset", "check_scope", "joint_plan"]

RAW = Pipeline([Exact()], "raw")
SCOPES = ("tensor", "global")


class Preset(ABC):
    """A rule from tensors to codecs, with parameters as dataclass fields."""

    @property
    def uses_reference(self) -> bool:
        """Whether its codecs get shorter by a tensor that both ends hold."""
        return False

    @abstractmethod
    def codec(self, spec: TensorSpec) -> Codec:
        """Return the codec of one floating-point tensor."""

    def plan(self, manifest: Manifest) -> Plan:
        """Return one codec for each tensor; tensors of integers are always sent exactly."""
        return Plan(tuple(self.codec(spec) if spec.is_float else RAW for spec in manifest.specs))


def joint_plan(manifest: Manifest, rule: Joint, codec: Codec) -> Plan:
    """Return a plan whose floating-point tensors ``rule`` codes together.

    ``codec`` says what is true of whatever the rule settles on.
    """
    own = tuple(i for i, spec in enumerate(manifest.specs) if spec.is_float)
    codecs = tuple(codec if spec.is_float else RAW for spec in manifest.specs)
    return Plan(codecs, (Together(rule, own),) if own else ())


def check_scope(scope: str) -> None:
    """Raise ``UnknownNameError`` unless ``scope`` is one of ``SCOPES``."""
    if scope not in SCOPES:
        raise UnknownNameError("scope", scope, SCOPES)
