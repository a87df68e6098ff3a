"""A cap on what a client weighs: examples are claimed, not proven."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression import ConfigError
from flowerpress.server.aggregate import Aggregator
from flowerpress.server.defences.base import Claim
from flowerpress.server.intake import Received

__all__ = ["Capped", "Examples"]


@dataclass(frozen=True)
class Examples:
    """``examples``: no client weighs more than ``times`` the median weight of its round.

    With ``most`` the cap is that number, and updates need not wait for the round's last one. A
    client's influence on a mean is then at most cap / (sum of all weights), whatever it claims; a
    median is honest as long as most clients are.
    """

    times: float = 3.0
    most: float | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.times < math.inf:
            raise ConfigError(f"times of examples is {self.times:g}; it must be at least 1")
        if self.most is not None and not 0 < self.most < math.inf:
            raise ConfigError(f"most of examples is {self.most:g}; it must be above 0")

    def cap(self, claims: Sequence[Claim]) -> float:
        """Return the most that a client may weigh in a round with these claims."""
        if self.most is not None:
            return self.most
        return self.times * statistics.median(claim.weight for claim in claims)


class Capped:
    """An aggregator that gives no update more than a weight of ``most`` on its way to ``inner``.

    Attributes:
        counted: the weight that each update was given, in the order in which they came.
    """

    def __init__(self, inner: Aggregator, most: float) -> None:
        self.counted: list[float] = []
        self._inner = inner
        self._most = most

    def accumulate(self, update: Received, weight: float) -> None:
        """Pass one update on."""
        counted = min(weight, self._most)
        self._inner.accumulate(update, counted)
        self.counted.append(counted)

    def result(self) -> dict[str, NDArray[np.generic]]:
        """Return what the inner aggregator makes of it."""
        return self._inner.result()
