"""What a round of split training came to, by client: steps, losses, bytes."""

from __future__ import annotations

from dataclasses import dataclass

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
