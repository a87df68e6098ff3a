"""Bottlenecks whose quantizer is measured and not learned: channel reduction, and none at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from flowerpress.compression.bottleneck.base import Bottleneck
from flowerpress.compression.bottleneck.convolutions import halves, rectified
from flowerpress.compression.bottleneck.levels import Levels
from flowerpress.compression.features.tables import Tables

__all__ = ["ChannelReduction", "Measured", "Plain"]


class Measured(Bottleneck):
    """Quantizes each channel of the latent to 2**``bits`` uniform levels, as ``calibrate`` saw it.

    Subclasses set ``encoder`` and ``decoder``.
    """

    def __init__(self, channels: int, bits: int) -> None:
        super().__init__()
        self.channels = channels
        self.levels = Levels(channels, bits)

    @torch.no_grad()
    def calibrate(self, features: Tensor) -> None:
        """Measure ranges and counts on the latents of ``features`` (B, C, ...)."""
        self.levels.measure(self.encoder(features))

    def rounded(self, latent: Tensor) -> Tensor:
        """Return the nearest levels."""
        return self.levels.rounded(latent)

    def width(self, latent: Tensor) -> Tensor:
        """Return the distance of levels."""
        return self.levels.width(latent)

    def statistics(self) -> Mapping[str, nn.Module]:
        """Return the levels."""
        return {"levels": self.levels}

    def tables(self, version: int) -> Tables:
        """Return tables of how often each level was seen."""
        return self.levels.tables(version)


class ChannelReduction(Measured):
    """Few channels at ``bits`` bits: the usual bottleneck without a prior.

    Matsubara et al., "Supervised Compression for Resource-Constrained Edge Computing Systems"
    (WACV 2022), section 4.2 ("CR + BQ"): the convolutions of ``Entropic``, normalized and
    rectified, trained without rounding and quantized afterwards.

    Args:
        shape, out_shape, channels, widths, decoder_widths: as in ``Entropic``.
        bits: of a level.

    Raises:
        ConfigError: shapes that its convolutions do not lead from and to, or too many bits.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        out_shape: tuple[int, ...],
        *,
        channels: int = 3,
        bits: int = 8,
        widths: Sequence[int] = (96, 48),
        decoder_widths: Sequence[int] = (512, 256),
    ) -> None:
        super().__init__(channels, bits)
        self.encoder, self.decoder = halves(
            shape, out_shape, channels, widths, decoder_widths, rectified, rectified
        )


class Plain(Measured):
    """No bottleneck: features of ``shape`` themselves, quantized to ``bits`` bits."""

    def __init__(self, shape: tuple[int, ...], *, bits: int = 8) -> None:
        super().__init__(shape[0], bits)
        self.encoder, self.decoder = nn.Identity(), nn.Identity()
