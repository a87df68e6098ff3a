"""What every preset is: a rule from tensors to codecs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from flowerpress.compression.codec import Codec
from flowerpress.compression.pipeline import Pipeline
from flowerpress.compression.plan import Plan
from flowerpress.compression.spec import Manifest, TensorSpec
from flowerpress.compression.stages import Exact

__all__ = ["RAW", "Preset"]

RAW = Pipeline([Exact()], "raw")


class Preset(ABC):
    """A rule from tensors to codecs, with parameters as dataclass fields.

    ``uses_reference`` says whether its codecs get shorter by a tensor that both ends hold.
    """

    uses_reference: ClassVar[bool] = False

    @abstractmethod
    def codec(self, spec: TensorSpec) -> Codec:
        """Return the codec of one floating-point tensor."""

    def plan(self, manifest: Manifest) -> Plan:
        """Return one codec for each tensor; tensors of integers are always sent exactly."""
        return Plan(tuple(self.codec(spec) if spec.is_float else RAW for spec in manifest.specs))
