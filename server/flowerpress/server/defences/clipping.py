"""Adaptive clipping: a bound on the norm of changes that follows what most clients send.

Andrew, Thakkar, McMahan and Ramaswamy, "Differentially Private Learning with Adaptive Clipping"
(NeurIPS 2021), algorithm 1 without its noise: after each round the bound is multiplied with
exp(-rate (b - quantile)), where b is the share of clients whose norm was within it. The server
sees every change here, so clients need not report b. It is a bound on influence and not
differential privacy, for which the noise would be needed.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression import ConfigError, Manifest
from flowerpress.server.aggregate import Aggregator
from flowerpress.server.defences.base import Claim
from flowerpress.server.defences.updates import mass_of, norm_of, scaled
from flowerpress.server.intake import Received

__all__ = ["Clip", "Clipped"]


@dataclass(frozen=True)
class Clip:
    """``clip``: changes longer than a tracked quantile of all norms are scaled down to it.

    Those longer than ``zero`` times the bound are left out altogether. The first bound is the
    quantile of the first round's own norms.
    """

    quantile: float = 0.5
    rate: float = 0.2
    zero: float = 10.0

    def __post_init__(self) -> None:
        if not 0 < self.quantile < 1:
            raise ConfigError(f"quantile of clip is {self.quantile:g}; it must be between 0 and 1")
        if not 0 < self.rate < math.inf:
            raise ConfigError(f"rate of clip is {self.rate:g}; it must be a number above 0")
        if not 1 <= self.zero <= math.inf:
            raise ConfigError(
                f"zero of clip is {self.zero:g}; it must be at least 1 (inf: nothing is left out)"
            )

    def first(self, claims: Sequence[Claim]) -> float:
        """Return the bound of a round before which nothing was known."""
        return float(np.quantile([claim.norm for claim in claims], self.quantile))

    def follow(self, bound: float, norms: Sequence[float]) -> float:
        """Return the next round's bound, given the norms of this one's changes.

        A bound of nothing (clients that all sent zeros) starts anew from the norms.
        """
        if not norms:
            return bound
        if not bound:
            return float(np.quantile(norms, self.quantile))
        within = sum(norm <= bound for norm in norms) / len(norms)
        return min(bound * math.exp(-self.rate * (within - self.quantile)), sys.float_info.max)


class Clipped:
    """An aggregator that scales changes down to a norm of ``bound`` on their way to ``inner``.

    Attributes:
        norms: of the changes, in the order in which they came.
        factors: what each was multiplied with; 0: it did not reach the inner aggregator.
        masses: the sum of absolute values of each that was not left alone; 0 for those that were.
    """

    def __init__(self, inner: Aggregator, manifest: Manifest, bound: float, zero: float) -> None:
        self.norms: list[float] = []
        self.factors: list[float] = []
        self.masses: list[float] = []
        self._inner = inner
        self._manifest = manifest
        self._bound = bound
        self._zero = zero

    def accumulate(self, update: Received, weight: float) -> None:
        """Pass one update on, shortened where it is too long, unless it is absurdly long."""
        norm = norm_of(update, self._manifest)
        mass = mass_of(update, self._manifest) if norm > self._bound else 0.0
        factor = 1.0
        if norm > self._zero * self._bound or norm == sys.float_info.max:
            factor = 0.0
        elif norm > self._bound:
            factor = self._bound / norm
            update = scaled(update, factor, self._manifest)
        if factor:
            self._inner.accumulate(update, weight)
        self.norms.append(norm)
        self.factors.append(factor)
        self.masses.append(mass)

    def result(self) -> dict[str, NDArray[Any]]:
        """Return what the inner aggregator makes of it."""
        return self._inner.result()
