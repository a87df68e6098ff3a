"""One resolved codec for each tensor of a manifest, or a rule that settles them together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from flowerpress.compression.codec import Codec, Context
from flowerpress.compression.errors import ConfigError
from flowerpress.compression.spec import Manifest, TensorSpec

__all__ = ["Coded", "Joint", "Plan", "Together"]


@dataclass(frozen=True)
class Coded:
    """One coded tensor: the codec that decodes it, and its body."""

    codec: Codec
    body: bytes


class Joint(ABC):
    """Codes the tensors of an update together where one's codec depends on the others.

    A threshold over all of them, or a number of bytes that they share. Only encoders know it: a
    frame names the codec that was settled on.
    """

    @abstractmethod
    def encode(
        self,
        specs: Sequence[TensorSpec],
        tensors: Sequence[NDArray[Any]],
        contexts: Sequence[Context],
    ) -> list[Coded]:
        """Return the coded tensors, in order.

        Args:
            specs: the tensors that this rule codes.
            tensors: their values, with the shapes of ``specs``.
            contexts: what an encoder may use beside each.

        Raises:
            EncodeError: a tensor cannot be encoded.
        """


@dataclass(frozen=True)
class Together:
    """Tensors, by their index in the manifest, that one rule codes."""

    rule: Joint
    tensors: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """The codec of each tensor, in manifest order.

    Where ``together`` names a tensor, its rule settles the codec for each update anew; the one in
    ``codecs`` then says what is true of whatever it settles on (``lossless``, ``biased``).
    """

    codecs: tuple[Codec, ...]
    together: tuple[Together, ...] = ()

    @property
    def lossless(self) -> bool:
        """Whether every tensor arrives bit for bit; then models are sent and not differences."""
        return all(codec.lossless for codec in self.codecs)

    def check(self, manifest: Manifest) -> None:
        """Refuse to code another model.

        Raises:
            ConfigError: another number of tensors.
        """
        if len(self.codecs) != len(manifest):
            raise ConfigError(
                f"the plan is for {len(self.codecs)} tensors and the model has {len(manifest)}"
            )

    def encode(
        self,
        manifest: Manifest,
        tensors: Sequence[NDArray[Any]],
        contexts: Sequence[Context],
    ) -> list[Coded]:
        """Return the coded tensors, in manifest order.

        Raises:
            ConfigError: a plan for another model, or a budget that nothing fits.
            EncodeError: a tensor cannot be encoded.
        """
        self.check(manifest)
        settled: dict[int, Coded] = {}
        for group in self.together:
            coded = group.rule.encode(
                [manifest.specs[i] for i in group.tensors],
                [tensors[i] for i in group.tensors],
                [contexts[i] for i in group.tensors],
            )
            settled |= zip(group.tensors, coded, strict=True)
        return [
            settled[i] if i in settled else Coded(codec, codec.encode(tensor, spec, context))
            for i, (codec, tensor, spec, context) in enumerate(
                zip(self.codecs, tensors, manifest.specs, contexts, strict=True)
            )
        ]
