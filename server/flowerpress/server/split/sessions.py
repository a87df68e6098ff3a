"""What the service remembers of its clients, bounded and forgotten in time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from flowerpress.protos.split import SplitMessage
from flowerpress.server.split.reports import ClientReport, Traffic

__all__ = ["Seat", "Session", "Sessions"]


@dataclass(eq=False)
class Seat:
    """One client in one round. ``done`` is the last step that was applied, ``answer`` its answer.

    ``pending`` is a step whose gradient is still to come: its number and the ends of its graph;
    ``shown`` is what its client was sent of it.
    """

    client: int
    round: int
    done: int = 0
    answer: SplitMessage | None = None
    pending: tuple[int, Tensor, Tensor] | None = None
    shown: SplitMessage | None = None
    entered: bool = False
    closed: bool = False
    report: ClientReport = field(default_factory=ClientReport)
    traffic: Traffic = field(default_factory=Traffic)
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(eq=False)
class Session:
    """One stream: the key of its checksums, and where its client sits."""

    key: bytes
    seat: Seat
    end: Callable[[], object]
    seen: float = field(default_factory=time.monotonic)


class Sessions:
    """The streams that are open, one for each client: a client's new one ends its old one."""

    def __init__(self, most: int, ttl: float) -> None:
        self._most, self._ttl = most, ttl
        self._open: dict[int, Session] = {}
        self._anonymous: set[Session] = set()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._open) + len(self._anonymous)

    def add(self, session: Session, *, training: bool) -> bool:
        """Register a stream; False where there are too many."""
        with self._lock:
            old = self._open.pop(session.seat.client, None) if training else None
            if len(self) >= self._most:
                return False
            if training:
                self._open[session.seat.client] = session
            else:
                self._anonymous.add(session)
        if old is not None:
            old.end()
        return True

    def current(self, session: Session) -> bool:
        """Whether this stream is still its client's newest; notes that it was heard of."""
        session.seen = time.monotonic()
        with self._lock:
            newest = self._open.get(session.seat.client)
            return session is newest or session in self._anonymous

    def remove(self, session: Session) -> None:
        """Forget a stream that ended."""
        with self._lock:
            if self._open.get(session.seat.client) is session:
                del self._open[session.seat.client]
            self._anonymous.discard(session)

    def sweep(self) -> None:
        """End the streams that were silent for longer than the time to live."""
        limit = time.monotonic() - self._ttl
        with self._lock:
            silent = [s for s in (*self._open.values(), *self._anonymous) if s.seen < limit]
        for session in silent:
            self.remove(session)
            session.seat.pending = session.seat.shown = None
            session.end()
