"""No bottleneck: features cross as they are, in whatever format the exchange codes them."""

from __future__ import annotations

from torch import Tensor, nn

from flowerpress.compression.bottleneck.base import Bottleneck

__all__ = ["Open"]


class Open(Bottleneck):
    """Features of ``shape`` are the latent; there is nothing to learn and no table."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.channels = shape[0]
        self.encoder, self.decoder = nn.Identity(), nn.Identity()

    def rounded(self, latent: Tensor) -> Tensor:
        """Return ``latent``."""
        return latent

    def tables(self, version: int) -> None:
        """Return None."""
        del version
