"""A learned density of each channel: what the rate of a latent is measured with.

Balle et al., "Variational image compression with a scale hyperprior" (ICLR 2018), appendix 6.1.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from flowerpress.compression.bottleneck.bounded import at_least
from flowerpress.compression.errors import ConfigError
from flowerpress.compression.features.tables import Tables

__all__ = ["FactorizedPrior"]

_WIDTHS = (1, 3, 3, 3, 3, 1)
_FIRST_SCALE = 10.0
_LEAST_LIKELIHOOD = 1e-9
# Beyond the tails a symbol is escaped: that costs tens of bits once in this many symbols.
_TAIL = 2.0**-14
_WIDEST = 1 << 12
# Bisection by many points at once: a bracket of 2**61 shrinks by 2**6 each time.
_SECTIONS = 64
_PASSES = 10
_REACH = 60


class FactorizedPrior(nn.Module):
    """A monotone network for each of ``channels`` channels, whose output is a logit of the CDF.

    The probability of the integer bin around v is c(v + 1/2) - c(v - 1/2), at least 1e-9.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        scale = _FIRST_SCALE ** (1 / (len(_WIDTHS) - 1))
        matrices, biases, factors = [], [], []
        for before, after in pairwise(_WIDTHS):
            first = math.log(math.expm1(1 / (scale * after)))
            matrices.append(nn.Parameter(torch.full((channels, after, before), first)))
            biases.append(nn.Parameter(torch.rand(channels, after, 1) - 0.5))
            factors.append(nn.Parameter(torch.zeros(channels, after, 1)))
        self.matrices = nn.ParameterList(matrices)
        self.biases = nn.ParameterList(biases)
        self.factors = nn.ParameterList(factors[:-1])
        self._medians: Tensor | None = None
        self._seen: tuple[int, ...] = ()

    def logits(self, values: Tensor) -> Tensor:
        """Return the logits of the CDF at ``values``, both (C, 1, N), in the precision of those."""
        out = values
        for layer, (matrix, bias) in enumerate(zip(self.matrices, self.biases, strict=True)):
            out = functional.softplus(matrix.to(out.dtype)) @ out + bias.to(out.dtype)
            if layer < len(self.factors):
                out = out + torch.tanh(self.factors[layer].to(out.dtype)) * torch.tanh(out)
        return out

    def likelihood(self, latent: Tensor) -> Tensor:
        """Return the probability of the bin around each value of (B, C, ...), in that shape."""
        channel_first = latent.transpose(0, 1)
        values = channel_first.reshape(self.channels, 1, -1)
        low, high = self.logits(values - 0.5), self.logits(values + 0.5)
        # Of two numbers near 1 the difference would be lost: the other tail is the same area.
        sign = torch.where(low + high > 0, -1.0, 1.0).to(low.dtype)
        mass = (torch.sigmoid(sign * high) - torch.sigmoid(sign * low)).abs()
        return at_least(mass, _LEAST_LIKELIHOOD).reshape(channel_first.shape).transpose(0, 1)

    def bits(self, latent: Tensor) -> Tensor:
        """Return the bits of a noisy or rounded latent (B, C, ...), one number, differentiable."""
        return -torch.log2(self.likelihood(latent)).sum()

    @torch.no_grad()
    def medians(self) -> Tensor:
        """Return the median of each channel (C,) float32, of the prior as it is now."""
        seen = tuple(part for p in self.parameters() for part in (id(p), p._version))
        if self._medians is None or seen != self._seen:
            self._medians, self._seen = self._quantiles(0.0).float(), seen
        return self._medians

    @torch.no_grad()
    def tables(self, version: int) -> Tables:
        """Return the integer tables of this prior: symbols are rounded differences to the medians.

        Computed in double precision, once, by whoever serves: the other end is sent the result.

        Raises:
            ConfigError: a parameter is NaN or infinite.
        """
        if not all(torch.isfinite(parameter).all() for parameter in self.parameters()):
            raise ConfigError("the prior holds NaN or infinity: train again with a smaller step")
        medians = self.medians()
        tail = math.log(_TAIL / (1 - _TAIL))
        low = torch.floor(self._quantiles(tail) - medians).clamp(-_WIDEST, 0).int()
        high = torch.ceil(self._quantiles(-tail) - medians).clamp(0, _WIDEST).int()
        first, last = int(low.min()), int(high.max())
        edges = torch.arange(first, last + 2, dtype=torch.float64) - 0.5
        below = torch.sigmoid(self.logits(edges + medians.double()[:, None, None]))[:, 0]
        bins = below.diff(dim=1).clamp(min=0).numpy()
        probabilities = []
        for row, start, stop in zip(bins, low.tolist(), high.tolist(), strict=True):
            inside = row[start - first : stop - first + 1]
            probabilities.append(np.append(inside, max(1.0 - float(inside.sum()), 1e-12)))
        return Tables.from_probabilities(
            version,
            low.numpy().astype(np.int32),
            probabilities,
            medians.numpy().copy(),
            np.ones(self.channels, np.float32),
        )

    def _quantiles(self, logit: float) -> Tensor:
        """Return where each channel's CDF has this logit (C,), in double precision."""
        powers = 2.0 ** torch.arange(_REACH + 1, dtype=torch.float64)
        points = torch.cat([-powers.flip(0), powers]).expand(self.channels, 1, -1)
        between = torch.linspace(0, 1, _SECTIONS + 1, dtype=torch.float64)
        for _ in range(_PASSES):
            below = (self.logits(points) < logit).sum(2, keepdim=True)
            below = below.clamp(1, points.shape[2] - 1)
            low, high = points.gather(2, below - 1), points.gather(2, below)
            points = low + (high - low) * between
        return ((low + high) / 2).flatten()
