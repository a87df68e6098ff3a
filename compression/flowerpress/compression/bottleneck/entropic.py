"""The learned bottleneck: normalized convolutions and a prior that knows what its latent costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from flowerpress.compression.bottleneck.base import Bottleneck, straight_through
from flowerpress.compression.bottleneck.convolutions import halves, rectified
from flowerpress.compression.bottleneck.gdn import Gdn
from flowerpress.compression.bottleneck.prior import FactorizedPrior
from flowerpress.compression.errors import UnknownNameError
from flowerpress.compression.features.tables import Tables

__all__ = ["Entropic"]

_FIRST_WIDTH = 4.0


class Entropic(Bottleneck):
    """The Entropic Student's bottleneck.

    Matsubara et al., "Supervised Compression for Resource-Constrained Edge Computing Systems"
    (WACV 2022). With ``widths`` (96, 48), ``channels`` 24 and ``decoder_widths`` (512, 256) it is
    the published one for a ResNet-50: (3, 224, 224) to a latent of (24, 55, 55) to (256, 56, 56).

    Published is divisive normalization, ``norm`` "gdn", in training that sees millions of images.
    In the few thousand steps that small data has, "groups" (normalization over groups of channels
    and ReLU, as in ``ChannelReduction``) gets far nearer to a teacher's features at fewer bits.

    Args:
        shape: what enters, (C, H, W) or (C, T).
        out_shape: what leaves.
        channels: of the latent.
        widths: of the encoder's hidden layers.
        decoder_widths: of the decoder's two hidden layers.
        norm: what follows hidden layers, "gdn" or "groups".

    Raises:
        ConfigError: shapes that its convolutions do not lead from and to, or another ``norm``.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        out_shape: tuple[int, ...],
        *,
        channels: int = 24,
        widths: Sequence[int] = (96, 48),
        decoder_widths: Sequence[int] = (512, 256),
        norm: str = "gdn",
    ) -> None:
        super().__init__()
        if norm not in _NORMS:
            raise UnknownNameError("norm of a bottleneck", norm, _NORMS)
        self.channels = channels
        self.encoder, self.decoder = halves(
            shape, out_shape, channels, widths, decoder_widths, *_NORMS[norm]
        )
        _spread(self.encoder, self.decoder)
        self.prior = FactorizedPrior(channels)

    def rounded(self, latent: Tensor) -> Tensor:
        """Return the nearest of the values that a channel's median plus an integer can be."""
        medians = self.prior.medians().reshape(-1, *(1,) * (latent.dim() - 2))
        with torch.no_grad():
            # Adding zero leaves no minus zero, which integers do not have either.
            values = (torch.round(latent - medians) + 0.0) + medians
        return straight_through(latent, values)

    def rate(self, latent: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the bits of a noisy latent."""
        return self.prior.bits(self.noisy(latent, generator))

    def relaxed(
        self, features: Tensor, generator: torch.Generator | None = None, *, noise: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Return decoded features and the bits that the prior gives to their noisy latent."""
        latent = self.encoder(features)
        noisy = self.noisy(latent, generator)
        crossed = noisy if noise else self.rounded(latent)
        return self.decoder(crossed), self.prior.bits(noisy)

    def prior_parameters(self) -> Iterator[nn.Parameter]:
        """Return the prior's parameters."""
        return self.prior.parameters()

    def statistics(self) -> Mapping[str, nn.Module]:
        """Return the prior."""
        return {"prior": self.prior}

    def tables(self, version: int) -> Tables:
        """Return integer tables of the prior as it is now."""
        return self.prior.tables(version)


@torch.no_grad()
def _spread(encoder: nn.Sequential, decoder: nn.Sequential) -> None:
    """Draw weights such that the first latent is several rounding steps wide.

    With torch's own, it lies within one step: all of it is rounded to zero, and noise hides it.
    """
    for half, gain in ((reversed(encoder), _FIRST_WIDTH), (decoder, 1 / _FIRST_WIDTH)):
        for module in half:
            if isinstance(module, nn.Conv1d | nn.Conv2d):
                nn.init.normal_(module.weight, std=gain * module.weight[0].numel() ** -0.5)
                gain = 1.0


def _inverse(channels: int) -> Gdn:
    return Gdn(channels, inverse=True)


_NORMS = {"gdn": (Gdn, _inverse), "groups": (rectified, rectified)}
