"""Bytes of one link, both ways."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from flowerpress.protos.split import SplitMessage

__all__ = ["LinkCounts", "LinkMeter"]


@dataclass
class LinkCounts:
    """``message``: bytes handed to gRPC; ``payload``: of them features, gradients, labels, tables;
    ``raw``: the arrays as float32; ``kinds``: messages of each kind.
    """

    message: int = 0
    payload: int = 0
    raw: int = 0
    kinds: Counter[str] = field(default_factory=Counter)

    def record(self, message: SplitMessage, size: int) -> None:
        """Count one message of ``size`` bytes."""
        self.message += size
        self.payload += len(message.payload) + len(message.labels) + len(message.tables)
        self.raw += 4 * message.elements
        self.kinds[message.kind.name] += 1


@dataclass
class LinkMeter:
    """What this link sent (``up``) and received (``down``), repetitions included."""

    up: LinkCounts = field(default_factory=LinkCounts)
    down: LinkCounts = field(default_factory=LinkCounts)
