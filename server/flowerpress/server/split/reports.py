"""What a round of split training came to, by client: steps, losses, bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flowerpress.server.traffic import Counts, Traffic

__all__ = ["ClientReport", "Counts", "RoundReport", "Traffic"]


@dataclass
class ClientReport:
    """What one client did.

    ``samples`` counts one that was seen twice as two; ``loss`` is their mean, NaN where the labels
    stay on the device.
    """

    steps: int = 0
    samples: int = 0
    loss: float = float("nan")


@dataclass(frozen=True)
class RoundReport:
    """What a round came to, by client."""

    clients: dict[int, ClientReport]
    traffic: dict[int, Traffic]

    def facts(self) -> list[Any]:
        """Return it as JSON has it, but for a loss that is no number."""
        clients = [[c, r.steps, r.samples, r.loss] for c, r in self.clients.items()]
        traffic = [[c, t.up.facts(), t.down.facts()] for c, t in self.traffic.items()]
        return [clients, traffic]

    @classmethod
    def of(cls, facts: list[Any]) -> RoundReport:
        """Return what ``facts()`` was called on."""
        clients, traffic = facts
        return cls(
            {client: ClientReport(*report) for client, *report in clients},
            {client: Traffic(Counts.of(up), Counts.of(down)) for client, up, down in traffic},
        )
