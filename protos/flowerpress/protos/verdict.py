"""What a server says of a client's last update. Flower acknowledges messages, not aggregation."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from flowerpress.compression import ConfigError, FormatError
from flowerpress.protos import records_pb2 as pb

__all__ = ["APPLIED", "UNDECIDED", "Outcome", "Verdict"]


class Outcome(IntEnum):
    """What became of an update."""

    UNDECIDED = pb.Instruction.UNDECIDED  # there was none, or nobody knows yet
    APPLIED = pb.Instruction.APPLIED  # it is in the model
    CLIPPED = pb.Instruction.CLIPPED  # it is, multiplied by a factor below 1
    REJECTED = pb.Instruction.REJECTED  # it was well-formed and refused on purpose, for good
    NOT_COUNTED = pb.Instruction.NOT_COUNTED  # lost, late or damaged: the client sends it again


@dataclass(frozen=True)
class Verdict:
    """The outcome of one update.

    ``factor`` is what a clipped one was multiplied by, from 0 (nothing of it counts) to 1;
    ``reason`` says in words why one was rejected or not counted.

    Raises:
        ConfigError: a factor that is none.
    """

    outcome: Outcome
    factor: float = 1.0
    reason: str = ""

    def __post_init__(self) -> None:
        if not 0.0 <= self.factor <= 1.0:
            raise ConfigError(f"an update cannot be clipped by {self.factor}: from 0 to 1")

    @property
    def settles(self) -> bool:
        """Whether the client has nothing more to send of that update."""
        return self.outcome in (Outcome.APPLIED, Outcome.CLIPPED, Outcome.REJECTED)

    @property
    def lost(self) -> float:
        """The share of the update's mass that was dropped on purpose, from 0 to 1."""
        return {Outcome.CLIPPED: 1.0 - self.factor, Outcome.REJECTED: 1.0}.get(self.outcome, 0.0)

    @classmethod
    def received(cls, outcome: int, factor: float, reason: str) -> Verdict:
        """Return the verdict in an instruction that anybody may have sent.

        Raises:
            FormatError: no outcome, or no factor.
        """
        if outcome not in list(Outcome):
            raise FormatError("outcome", f"unknown outcome {outcome}")
        known = Outcome(outcome)
        if known is Outcome.CLIPPED and not 0.0 <= factor <= 1.0:
            raise FormatError("factor", f"{factor} is none to clip by: from 0 to 1")
        return cls(known, factor if known is Outcome.CLIPPED else 1.0, reason)


UNDECIDED = Verdict(Outcome.UNDECIDED)
APPLIED = Verdict(Outcome.APPLIED)
