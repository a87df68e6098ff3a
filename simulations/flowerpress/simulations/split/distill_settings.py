"""How a cut network is distilled: stages, epochs, rates."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from flowerpress.compression import ConfigError

__all__ = ["STAGES", "DistillSettings"]

STAGES = {1: "features", 2: "tail", 3: "all"}
"""What is met or trained in each stage."""

_RATES = {1: 1.0, 2: 0.2, 3: 0.5}


@dataclass(frozen=True)
class DistillSettings:
    """How a cut network is distilled.

    ``beta``: squared error that a bit of an example is worth; in the third stage, of the loss in
    nats. ``lr``: of Adam in the first stage, the second has a fifth and the third half of it; each
    falls to zero along a cosine. ``rounding``: what the first stage has in place of rounding, noise
    as wide as a step or rounding itself with gradients straight through. ``relative``: each error
    counts in shares of the square of the teacher's features, so that late ones, which are few and
    matter most, weigh as much as early ones.

    Raises:
        ConfigError: a number out of range.
    """

    beta: float = 3e-4
    epochs_stage1: int = 8
    epochs_stage2: int = 4
    lr: float = 3e-3
    batch_size: int = 64
    rounding: Literal["noise", "straight-through"] = "noise"
    relative: bool = True
    epochs_stage3: int = 0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.beta) and self.beta >= 0):
            raise ConfigError(f"beta is {self.beta}; it must be a number from 0 up")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise ConfigError(f"lr is {self.lr}; it must be a number above 0")
        if min(map(self.epochs, STAGES)) < 0 or self.batch_size < 1:
            raise ConfigError("epochs must be at least 0, and batch_size at least 1")
        if self.rounding not in ("noise", "straight-through"):
            raise ConfigError(f"rounding is {self.rounding!r}; it is noise or straight-through")

    def epochs(self, stage: int) -> int:
        """Return the epochs of stage 1, 2 or 3."""
        return (self.epochs_stage1, self.epochs_stage2, self.epochs_stage3)[stage - 1]

    def rate(self, stage: int, along: float) -> float:
        """Return the learning rate where a share ``along`` of a stage is over."""
        first = self.lr * _RATES[stage]
        return first * 0.5 * (1 + math.cos(math.pi * along))
