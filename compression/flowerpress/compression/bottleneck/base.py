"""What stands at the cut of a network, whatever it is made of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from flowerpress.compression.features.tables import Tables

__all__ = ["Bottleneck", "straight_through"]


class Bottleneck(nn.Module, ABC):
    """Makes features small before they cross, and features again of what arrives.

    ``encoder`` maps what enters, (B, C, ...), to the latent, (B, ``channels``, ...) float32: it
    runs on the device. Of the latent, integers cross: round((y - centre) / step), per channel.
    ``decoder`` maps what was decoded to features and runs on the server. Calling the module does
    all of it at once, with the rounding passed through by gradients.
    """

    channels: int
    encoder: nn.Module
    decoder: nn.Module

    @abstractmethod
    def rounded(self, latent: Tensor) -> Tensor:
        """Return what the server decodes of ``latent``, to the bit; gradients pass unchanged."""

    def noisy(self, latent: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return ``latent`` with uniform noise as wide as a rounding step, for training.

        Balle et al., "End-to-end Optimized Image Compression" (ICLR 2017), section 3.
        """
        noise = torch.rand(latent.shape, generator=generator).to(latent) - 0.5
        return latent + noise * self.width(latent)

    def width(self, latent: Tensor) -> Tensor:
        """Return the rounding step of each channel, in a shape that multiplies a latent."""
        return latent.new_ones(())

    def rate(self, latent: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the bits that the prior gives to a noisy ``latent``: one number, differentiable.

        Zero where there is no prior to learn.
        """
        del generator
        return latent.new_zeros(())

    def relaxed(
        self, features: Tensor, generator: torch.Generator | None = None, *, noise: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Return what the tail gets while this is trained as a whole, and the bits of it.

        Without a prior nothing is rounded and nothing costs bits: levels are measured afterwards.

        Args:
            features: what enters (B, C, ...).
            generator: of the noise.
            noise: whether noise stands for rounding, or rounding itself, straight through.
        """
        del generator, noise
        latent = self.encoder(features)
        return self.decoder(latent), latent.new_zeros(())

    def prior_parameters(self) -> Iterator[nn.Parameter]:
        """Return the parameters that only the rate depends on."""
        return iter(())

    def statistics(self) -> Mapping[str, nn.Module]:
        """Return what tables are made from (a prior, measured levels), by name: a device holds it.

        Empty where there is none, or where the encoder holds it already.
        """
        return {}

    @torch.no_grad()
    def calibrate(self, features: Tensor) -> None:
        """Set what is measured and not learned (ranges, histograms, axes) from sample features.

        ``features`` (B, C, ...) are what enters ``encoder``. Nothing to do where all is learned.
        """
        del features

    @abstractmethod
    def tables(self, version: int) -> Tables | None:
        """Return the integer tables that both ends code with; None where there is nothing to learn.

        Raises:
            ConfigError: ``calibrate`` has to be called first, or training ended in NaN.
        """

    def forward(self, features: Tensor) -> Tensor:
        """Return the features that the tail gets."""
        out: Tensor = self.decoder(self.rounded(self.encoder(features)))
        return out


def straight_through(latent: Tensor, rounded: Tensor) -> Tensor:
    """Return the values of ``rounded`` with the gradients of ``latent``.

    Bengio et al., "Estimating or Propagating Gradients Through Stochastic Neurons" (2013),
    section 4. The values are those of ``rounded`` to the bit, unlike with y + (r - y).
    """
    passed: Tensor = _Pass.apply(latent, rounded)  # type: ignore[no-untyped-call]
    return passed


class _Pass(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx, latent: Tensor, rounded: Tensor
    ) -> Tensor:
        del ctx, latent
        return rounded.detach().clone()

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        del ctx
        return gradient, None
