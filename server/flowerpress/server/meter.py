"""Bytes by direction, client, round and tensor: the lengths of blobs that were sent."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flowerpress.protos.store import Snapshot
from flowerpress.server.snapshots import as_blob, from_blob

__all__ = ["HEADER", "Meter", "RoundBytes"]

HEADER = "(headers)"
"""What belongs to no tensor: envelopes, recipes, digests, lengths."""


@dataclass
class Direction:
    """Bytes one way: in all, what float32 would have been, by client and by tensor.

    ``bodies`` is the part of each client's bytes that belongs to tensors.
    """

    total: int = 0
    raw: int = 0
    by_client: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    by_tensor: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    bodies: dict[int, int] = field(default_factory=lambda: defaultdict(int))

    def record(self, client: int, size: int, raw: int, by_tensor: Mapping[str, int]) -> None:
        """Count one blob of ``size`` bytes to or from ``client``."""
        self.total += size
        self.raw += raw
        self.by_client[client] += size
        self.by_tensor[HEADER] += size
        self.attribute(client, by_tensor)

    def attribute(self, client: int, by_tensor: Mapping[str, int]) -> None:
        """Say which tensors took bytes that were counted as headers until they were understood."""
        for name, count in by_tensor.items():
            self.by_tensor[name] += count
            self.by_tensor[HEADER] -= count
            self.bodies[client] += count

    def facts(self) -> list[Any]:
        """Return it as JSON has it."""
        clients, bodies = list(self.by_client.items()), list(self.bodies.items())
        return [self.total, self.raw, clients, dict(self.by_tensor), bodies]

    @classmethod
    def of(cls, facts: list[Any]) -> Direction:
        """Return what ``facts()`` was called on."""
        total, raw, clients, tensors, bodies = facts
        by_client, of_tensors = (defaultdict(int, dict(pairs)) for pairs in (clients, bodies))
        return cls(total, raw, by_client, defaultdict(int, tensors), of_tensors)


@dataclass
class RoundBytes:
    """What one round moved."""

    uplink: Direction = field(default_factory=Direction)
    downlink: Direction = field(default_factory=Direction)


class Meter:
    """Counts of every round of a run, by round number."""

    def __init__(self) -> None:
        self.rounds: dict[int, RoundBytes] = defaultdict(RoundBytes)

    def of(self, server_round: int) -> RoundBytes:
        """Return the counts of one round; all zero if nothing was sent in it."""
        return self.rounds[server_round]

    def forget(self, before: int) -> None:
        """Forget the rounds before ``before``."""
        for number in [number for number in self.rounds if number < before]:
            del self.rounds[number]

    def state(self) -> Snapshot:
        """Return the counts of all rounds."""
        rounds = [[n, r.uplink.facts(), r.downlink.facts()] for n, r in self.rounds.items()]
        return Snapshot(blobs={"rounds": as_blob(rounds)})

    def restore(self, snapshot: Snapshot) -> None:
        """Go on from what ``state()`` returned."""
        self.rounds.clear()
        for number, up, down in from_blob(snapshot.blobs["rounds"]):
            self.rounds[number] = RoundBytes(Direction.of(up), Direction.of(down))

    @property
    def up(self) -> int:
        """All bytes from clients."""
        return sum(r.uplink.total for r in self.rounds.values())

    @property
    def down(self) -> int:
        """All bytes to clients."""
        return sum(r.downlink.total for r in self.rounds.values())
