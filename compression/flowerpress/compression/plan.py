"""One resolved codec for each tensor of a manifest."""

from __future__ import annotations

from dataclasses import dataclass

from flowerpress.compression.codec import Codec
from flowerpress.compression.errors import ConfigError
from flowerpress.compression.spec import Manifest

__all__ = ["Plan"]


@dataclass(frozen=True)
class Plan:
    """The codec of each tensor, in manifest order."""

    codecs: tuple[Codec, ...]

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
