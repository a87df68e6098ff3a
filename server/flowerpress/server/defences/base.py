"""What one client's update looked like to a defence, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from flowerpress.protos import APPLIED, Outcome, Verdict

__all__ = ["OUTLIER", "Claim", "Treatment"]

OUTLIER = "the change is absurdly long beside what most clients send"


class Claim(NamedTuple):
    """What bounds are made of: the norm of a client's change and the weight that it claims."""

    norm: float
    weight: float


@dataclass(frozen=True)
class Treatment:
    """What a defence made of one client's update.

    Attributes:
        round: the round.
        node: the client.
        sequence: the update's number.
        factor: what its change was multiplied with: 1 left alone, less: clipped, 0: rejected.
        claimed: the weight that it claimed.
        counted: the weight that it was given; 0 where it was rejected.
        mass: the sum of absolute values of a change that was clipped or rejected, else 0.
        share: of its values, how many were within what a trimmed mean or median averages.
    """

    round: int
    node: int
    sequence: int
    factor: float
    claimed: float
    counted: float
    mass: float
    share: float

    @property
    def rejected(self) -> bool:
        """Whether nothing of the update counted."""
        return self.factor == 0

    @property
    def verdict(self) -> Verdict:
        """What the client is told."""
        if self.rejected:
            return Verdict(Outcome.REJECTED, reason=OUTLIER)
        return APPLIED if self.factor == 1 else Verdict(Outcome.CLIPPED, self.factor)
