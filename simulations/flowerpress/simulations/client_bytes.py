"""Bytes of each client in a round, by what they are, as ``rounds.jsonl`` keeps them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flowerpress.simulations.fields import Fields

if TYPE_CHECKING:
    from flowerpress.server import RoundBytes
    from flowerpress.server.traffic import Traffic
    from flowerpress.simulations.metrics import RoundRecord

__all__ = ["WIRE", "ClientBytes", "client_bytes", "payload_differences"]

WIRE = "wire"
"""Counted at the socket; every other name is a part of it (see ``server.wire.ITEMS``)."""


@dataclass(frozen=True)
class ClientBytes:
    """What one client moved in a round.

    ``up`` and ``down`` map names to bytes: ``codec`` and ``envelope`` in every run; where blobs
    cross on a connection of their own, whatever else is on it, and ``wire``, which is all of it.
    """

    client: int
    up: Mapping[str, int]
    down: Mapping[str, int]

    @classmethod
    def from_json(cls, data: object, where: str) -> ClientBytes:
        """Read what is in a record; ``where`` begins the message of the ConfigError."""
        read = Fields(data, where)
        found = cls(read.integer("client"), read.counts("up"), read.counts("down"))
        read.done()
        return found


def client_bytes(
    moved: RoundBytes, traffic: Mapping[int, Traffic], partitions: Mapping[int, int]
) -> tuple[ClientBytes, ...]:
    """Return what each client moved in a round, in the order of partitions.

    Args:
        moved: what the strategy sent and got, by node.
        traffic: what a service of its own moved, by node; empty without one.
        partitions: node -> partition.
    """
    from flowerpress.server.wire import ledger

    found = []
    for node in {**moved.uplink.by_client, **moved.downlink.by_client}:
        parts: dict[str, dict[str, int]] = {}
        for way, direction in (("up", moved.uplink), ("down", moved.downlink)):
            codec, sent = direction.bodies.get(node, 0), direction.by_client.get(node, 0)
            parts[way] = {"codec": codec, "envelope": sent - codec}
            if node in traffic:
                counts = traffic[node].up if way == "up" else traffic[node].down
                made = ledger(
                    way,
                    traffic[node].connections,
                    codec=codec,
                    blob=counts.by_kind.get("blob", 0),
                    repeated=counts.by_kind.get("repeated", 0),
                )
                parts[way] = {WIRE: made.wire, **made.items}
        found.append(ClientBytes(partitions[node], parts["up"], parts["down"]))
    return tuple(sorted(found, key=lambda one: one.client))


def payload_differences(one: Sequence[RoundRecord], other: Sequence[RoundRecord]) -> list[str]:
    """Say where two runs did not send the same updates and models, byte for byte in length.

    Runs with the same configuration and seed send the same, whatever engine or deployment they have
    and whatever their bytes cross in; nothing is returned for such.
    """
    found = []
    if len(one) != len(other):
        found.append(f"{len(one)} rounds, and {len(other)}")
    for this, that in zip(one, other, strict=False):
        for name in ("round", "bytes_up", "bytes_down", "up_by_tensor", "down_by_tensor"):
            values = getattr(this, name), getattr(that, name)
            if values[0] != values[1]:
                found.append(f"round {this.round}: {name} is {values[0]}, and {values[1]}")
        for way in ("up", "down"):
            bodies = [
                {each.client: getattr(each, way)["codec"] for each in record.client_bytes}
                for record in (this, that)
            ]
            if bodies[0] != bodies[1]:
                found.append(f"round {this.round}: {way}, by client {bodies[0]}, and {bodies[1]}")
    return found
