"""Fewer steps of a sequence across the cut, without a look into the future."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Merge", "Unmerge"]


class Merge(nn.Module):
    """Averages every ``count`` neighbouring steps of (B, C, T), and a shorter rest."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.pool = nn.AvgPool1d(count, ceil_mode=True)

    def forward(self, features: Tensor) -> Tensor:
        """Return (B, C, ceil(T / count))."""
        out: Tensor = self.pool(features)
        return out


class Unmerge(nn.Module):
    """Gives each of ``steps`` steps the newest average that holds none later than itself.

    The steps before the first whole group get zeros: a model that predicts what comes next must
    not be told.
    """

    def __init__(self, count: int, steps: int) -> None:
        super().__init__()
        self.count, self.steps = count, steps

    def forward(self, merged: Tensor) -> Tensor:
        """Return (B, C, steps)."""
        at = torch.div(torch.arange(1, self.steps + 1), self.count, rounding_mode="floor") - 1
        return merged[..., at.clamp(min=0)] * (at >= 0)
