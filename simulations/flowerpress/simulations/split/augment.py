"""Flips and shifts of images, drawn for each batch anew."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["flipped_and_shifted"]


def flipped_and_shifted(images: Tensor, generator: torch.Generator, most: int = 4) -> Tensor:
    """Return each of ``images`` (B, C, H, W) mirrored or not, and shifted by up to ``most`` pixels.

    What comes in at the edges is zero. He et al., "Deep Residual Learning for Image Recognition"
    (2016), section 4.2.
    """
    mirrored = torch.rand(len(images), 1, 1, 1, generator=generator) < 0.5
    images = torch.where(mirrored, images.flip(3), images)
    height, width = images.shape[2:]
    padded = functional.pad(images, (most, most, most, most))
    down, right = torch.randint(2 * most + 1, (2, len(images)), generator=generator)
    rows = down[:, None] + torch.arange(height)
    columns = right[:, None] + torch.arange(width)
    index = torch.arange(len(images))[:, None, None]
    return padded.permute(0, 2, 3, 1)[index, rows[:, :, None], columns[:, None, :]].permute(
        0, 3, 1, 2
    )
