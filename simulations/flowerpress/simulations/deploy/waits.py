"""Pauses between tries: short at first, longer each time, up to half a minute."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

__all__ = ["Waits"]

_FIRST, _LONGEST = 1.0, 30.0  # seconds


class Waits:
    """How long to wait before the next try, and for how long it has not worked.

    ``stopped`` ends a wait; ``say`` is told of each.
    """

    def __init__(self, stopped: threading.Event, say: Callable[[str], None]) -> None:
        self._stopped = stopped
        self._say = say
        self._silent_since: float | None = None
        self._refused_since: float | None = None
        self._deaths = 0
        self._next = _FIRST

    def answered(self) -> None:
        """The server takes this device: the next wait is short again."""
        self._next = _FIRST
        self._refused_since = None

    def lived(self) -> None:
        """Note a SuperNode that lived for longer: those before it do not count any more."""
        self.answered()
        self._deaths = 0

    def heard(self) -> None:
        """The server answers, whether or not it takes this device."""
        self._silent_since = None

    def silent(self) -> float:
        """Return seconds since the server answered last."""
        self._silent_since = self._silent_since or time.monotonic()
        return time.monotonic() - self._silent_since

    def refused(self) -> float:
        """Return seconds since the server refused first."""
        self._refused_since = self._refused_since or time.monotonic()
        return time.monotonic() - self._refused_since

    def died(self) -> int:
        """Count a SuperNode that lived for seconds only."""
        self._deaths += 1
        return self._deaths

    def wait(self, reason: str) -> None:
        """Say why and wait, each time twice as long, unless somebody says stop."""
        self._say(f"{reason}; next try in {self._next:.0f} s")
        self._stopped.wait(self._next)
        self._next = min(self._next * 2, _LONGEST)
