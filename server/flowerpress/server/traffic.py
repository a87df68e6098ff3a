"""Bytes of one client of a service beside Flower, both ways."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from flowerpress.server.wire import Connection

__all__ = ["Counts", "Traffic"]


@dataclass
class Counts:
    """Bytes one way. ``message``: all that was handed to gRPC; ``by_kind``: the payloads in it, by
    what they are; ``raw``: the same arrays as float32. ``messages`` counts them.
    """

    message: int = 0
    raw: int = 0
    messages: int = 0
    by_kind: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    @property
    def payload(self) -> int:
        """Bytes of all payloads."""
        return sum(self.by_kind.values())

    def record(self, message: int, raw: int = 0, **payloads: int) -> None:
        """Count one message."""
        self.message += message
        self.raw += raw
        self.messages += 1
        for kind, size in payloads.items():
            if size:
                self.by_kind[kind] += size

    def facts(self) -> list[Any]:
        """Return it as JSON has it."""
        return [self.message, self.raw, self.messages, dict(self.by_kind)]

    @classmethod
    def of(cls, facts: list[Any]) -> Counts:
        """Return what ``facts()`` was called on."""
        message, raw, messages, by_kind = facts
        return cls(message, raw, messages, defaultdict(int, by_kind))


@dataclass
class Traffic:
    """Bytes of one client, both ways, and the connections on which they crossed, where a front
    counts what is on the wire.
    """

    up: Counts = field(default_factory=Counts)
    down: Counts = field(default_factory=Counts)
    connections: list[Connection] = field(default_factory=list)
