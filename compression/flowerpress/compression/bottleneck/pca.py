"""Principal axes of the channels: a bottleneck without training."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from flowerpress.compression.bottleneck.measured import Measured
from flowerpress.compression.errors import ConfigError

__all__ = ["Pca"]


class Pca(Measured):
    """The leading principal axes of the channels, found by ``calibrate``: nothing is trained.

    Args:
        shape: what enters and leaves, (C, ...).
        channels: how many axes are kept.
        bits: levels of the widest of them; all axes share its step, as is best for squared errors.

    Raises:
        ConfigError: more axes than channels, or too many bits.
    """

    encoder: _Affine
    decoder: _Affine

    def __init__(self, shape: tuple[int, ...], *, channels: int, bits: int = 6) -> None:
        if not 1 <= channels <= shape[0]:
            raise ConfigError(f"channels is {channels}; it must be from 1 to {shape[0]}")
        super().__init__(channels, bits)
        self.encoder = _Affine(shape[0], channels)
        self.decoder = _Affine(channels, shape[0])

    @torch.no_grad()
    def calibrate(self, features: Tensor) -> None:
        """Find the axes of ``features`` (B, C, ...), then ranges and counts along them."""
        rows = features.transpose(0, 1).flatten(1).double()
        mean = rows.mean(1, keepdim=True)
        _, axes = torch.linalg.eigh((rows - mean) @ (rows - mean).T)
        leading = axes[:, -self.channels :].flip(1)
        self.encoder.set(leading.T, -(leading.T @ mean)[:, 0])
        self.decoder.set(leading, mean[:, 0])
        self.levels.measure(self.encoder(features), alike=True)


class _Affine(nn.Module):
    """A fixed map of the channels of (B, C, ...)."""

    matrix: Tensor
    offset: Tensor

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.register_buffer("matrix", torch.zeros(after, before))
        self.register_buffer("offset", torch.zeros(after))

    def set(self, matrix: Tensor, offset: Tensor) -> None:
        self.matrix.copy_(matrix)
        self.offset.copy_(offset)

    def forward(self, features: Tensor) -> Tensor:
        """Return (B, C', ...)."""
        flat = features.flatten(2) if features.dim() > 2 else features.unsqueeze(2)
        out = self.matrix @ flat + self.offset[:, None]
        return out.reshape(len(features), -1, *features.shape[2:])
