"""Generalized divisive normalization, with absolute values in place of squares.

Johnston et al., "Computationally Efficient Neural Image Compression" (2019, arXiv:1912.08771),
section 3; the parametrization is that of Balle et al., "Density Modeling of Images using a
Generalized Normalization Transformation" (ICLR 2016), appendix.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from flowerpress.compression.bottleneck.bounded import at_least

__all__ = ["Gdn"]

_PEDESTAL = 2.0**-36
_LEAST_BETA = 1e-6
_FIRST_GAMMA = 0.1


class Gdn(nn.Module):
    """y = x / (beta + sum_j gamma_ij |x_j|) over channels; the inverse multiplies.

    Takes and returns (B, ``channels``, ...) float32. ``beta`` and ``gamma`` stay positive because
    what is stored is the root of value + 2**-36, and values below their least are cut off.
    """

    def __init__(self, channels: int, *, inverse: bool = False) -> None:
        super().__init__()
        self.inverse = inverse
        self.beta = nn.Parameter(torch.sqrt(torch.ones(channels) + _PEDESTAL))
        self.gamma = nn.Parameter(torch.sqrt(_FIRST_GAMMA * torch.eye(channels) + _PEDESTAL))

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalized features."""
        beta = _squared(self.beta, _LEAST_BETA)
        gamma = _squared(self.gamma, 0.0)
        flat = x.flatten(2) if x.dim() > 2 else x.unsqueeze(2)
        norm = functional.conv1d(flat.abs(), gamma.unsqueeze(2), beta).reshape(x.shape)
        return x * norm if self.inverse else x / norm


def _squared(stored: Tensor, least: float) -> Tensor:
    return at_least(stored, (least + _PEDESTAL) ** 0.5).square() - _PEDESTAL
