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

    ``pending`` is a step whose gradient is still to come: its number and the ends of its graph, one
    at most; ``shown`` is what its client was sent of it. ``seen`` is a digest of the features of
    the newest step: a repetition is known by it. ``holder`` is the stream that may take steps,
    ``heard`` when it last did. All of it changes under ``lock`` only.
    """

    client: int
    round: int
    done: int = 0
    seen: bytes = b""
    answer: SplitMessage | None = None
    pending: tuple[int, Tensor, Tensor] | None = None
    shown: SplitMessage | None = None
    entered: bool = False
    left: bool = False
    closed: bool = False
    holder: Session | None = None
    heard: float = field(default_factory=time.monotonic)
    report: ClientReport = field(default_factory=ClientReport)
    traffic: Traffic = field(default_factory=Traffic)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self) -> None:
        """Forget all steps."""
        self.entered, self.left, self.done, self.seen = True, False, 0, b""
        self.report = ClientReport()
        self.forget()

    def forget(self) -> None:
        """Let go of what is kept for repetitions, and of the graph."""
        self.answer = self.shown = self.pending = None

    def rest(self, ttl: float) -> None:
        """Let go of a graph whose gradient has not come for ``ttl`` seconds."""
        # A seat that is in use is not resting.
        if self.pending is not None and self.lock.acquire(blocking=False):
            try:
                if time.monotonic() - self.heard > ttl:
                    self.shown = self.pending = None
            finally:
                self.lock.release()


@dataclass(eq=False)
class Session:
    """One stream: the key of its checksums, where its client sits, how much it takes.

    ``seat`` is None until the stream has introduced itself.
    """

    key: bytes
    end: Callable[[], object]
    seat: Seat | None = None
    largest: int = 0
    seen: float = field(default_factory=time.monotonic)


class Sessions:
    """The streams that are open; of those that train, one for each client: a new one ends the old.

    Args:
        most: streams at the same time.
        ttl: seconds of silence after which ``sweep`` ends a stream.
    """

    def __init__(self, most: int, ttl: float) -> None:
        self._most, self._ttl = most, ttl
        self._open: set[Session] = set()
        self._training: dict[int, Session] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._open)

    def add(self, session: Session) -> bool:
        """Register a stream; False where there are too many."""
        with self._lock:
            if len(self._open) >= self._most:
                return False
            self._open.add(session)
            return True

    def train(self, session: Session, seat: Seat) -> None:
        """Note that a stream takes a client's steps from now on; end the one that did."""
        with self._lock:
            old = self._training.get(seat.client)
            self._training[seat.client] = session
        if old is not None and old is not session:
            old.end()

    def remove(self, session: Session) -> None:
        """Forget a stream that ended."""
        with self._lock:
            self._open.discard(session)
            if session.seat is not None and self._training.get(session.seat.client) is session:
                del self._training[session.seat.client]

    def sweep(self) -> None:
        """End the streams that were silent for too long."""
        limit = time.monotonic() - self._ttl
        with self._lock:
            silent = [session for session in self._open if session.seen < limit]
        for session in silent:
            session.end()
