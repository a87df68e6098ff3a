"""Uniform levels per channel, and how often each was seen: a quantizer that is measured."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from flowerpress.compression.bottleneck.base import straight_through
from flowerpress.compression.errors import ConfigError
from flowerpress.compression.features.tables import Tables

__all__ = ["Levels"]

_MOST_BITS = 12


class Levels(nn.Module):
    """2**``bits`` levels for each of ``channels`` channels, between least and largest value seen.

    Values outside are coded all the same, as escapes. Buffers, float32: ``centres`` and ``steps``
    (C,), value = step * symbol + centre, and ``counts`` (C, 2**bits).
    """

    centres: Tensor
    steps: Tensor
    counts: Tensor

    def __init__(self, channels: int, bits: int) -> None:
        super().__init__()
        if not 1 <= bits <= _MOST_BITS:
            raise ConfigError(f"bits is {bits}; it must be from 1 to {_MOST_BITS}")
        self.register_buffer("centres", torch.zeros(channels))
        self.register_buffer("steps", torch.ones(channels))
        self.register_buffer("counts", torch.zeros(channels, 1 << bits))

    @torch.no_grad()
    def measure(self, latent: Tensor, *, alike: bool = False) -> None:
        """Set ranges and counts from sample latents (B, C, ...).

        Args:
            latent: the samples, finite.
            alike: whether all channels have the step of the widest.

        Raises:
            ConfigError: a value is NaN or infinite, or there is none.
        """
        values = latent.transpose(0, 1).flatten(1)
        if not values.numel() or not torch.isfinite(values).all():
            raise ConfigError("features to measure levels on must be finite, and at least one")
        low, high = values.amin(1), values.amax(1)
        most = self.counts.shape[1] - 1
        # A channel that never changes has one level; any step does.
        steps = torch.where(high > low, (high - low) / most, torch.ones_like(low))
        self.steps.copy_(steps.max().expand_as(steps) if alike else steps)
        self.centres.copy_(low)
        symbols = torch.round((values - low[:, None]) / self.steps[:, None])
        for channel, row in enumerate(symbols.long().clamp(0, most)):
            self.counts[channel] = torch.bincount(row, minlength=most + 1)

    def rounded(self, latent: Tensor) -> Tensor:
        """Return the nearest levels of a latent (B, C, ...), straight through."""
        steps, centres = self._beside(self.steps, latent), self._beside(self.centres, latent)
        with torch.no_grad():
            # Adding zero leaves no minus zero, which integers do not have either.
            values = (torch.round((latent - centres) / steps) + 0.0) * steps + centres
        return straight_through(latent, values)

    def width(self, latent: Tensor) -> Tensor:
        """Return the steps in a shape that multiplies ``latent``."""
        return self._beside(self.steps, latent)

    def tables(self, version: int) -> Tables:
        """Return tables of the counts, with half a count added to each level.

        Raises:
            ConfigError: nothing was measured.
        """
        counts = self.counts.numpy().astype(np.float64)
        if not counts.any():
            raise ConfigError("this bottleneck is measured: call calibrate(features) first")
        escape = np.full((len(counts), 1), 0.5)
        smoothed = np.concatenate([counts + 0.5, escape], axis=1)
        return Tables.from_probabilities(
            version,
            np.zeros(len(counts), np.int32),
            list(smoothed / smoothed.sum(1, keepdims=True)),
            self.centres.numpy().copy(),
            self.steps.numpy().copy(),
        )

    @staticmethod
    def _beside(values: Tensor, latent: Tensor) -> Tensor:
        return values.reshape(-1, *(1,) * (latent.dim() - 2))
