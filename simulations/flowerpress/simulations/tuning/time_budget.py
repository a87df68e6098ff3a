"""How long a measurement may take, asked before each of its steps."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from flowerpress.compression.errors import ConfigError

__all__ = ["TimeBudget"]


class TimeBudget:
    """Seconds that may pass, and whether somebody asked to stop.

    A step under way is never broken off by the clock: whoever works in steps asks ``allows`` before
    each, with the seconds that it is expected to take. Ctrl-C inside ``stoppable`` ends the step,
    and all later ones are refused.
    """

    def __init__(
        self, seconds: float | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``seconds``: None for as long as it takes. ``clock``: seconds, monotonic.

        Raises:
            ConfigError: ``seconds`` is not a positive number.
        """
        if seconds is not None and not 0 < seconds < math.inf:
            raise ConfigError(f"a time budget of {seconds} seconds; it must be a number above 0")
        self.seconds = seconds
        self.stopped = False
        self._clock = clock
        self._began = clock()

    @property
    def spent(self) -> float:
        """Seconds since the beginning."""
        return self._clock() - self._began

    @property
    def left(self) -> float:
        """Seconds to go; infinite without a limit, 0 once stopped."""
        if self.stopped:
            return 0.0
        return math.inf if self.seconds is None else max(0.0, self.seconds - self.spent)

    def allows(self, expected: float = 0.0, *, until: float = 1.0) -> bool:
        """Return whether a step of ``expected`` seconds still fits.

        ``until``: the fraction of the whole budget at which this kind of step has had its share.
        """
        if self.stopped:
            return False
        return self.seconds is None or self.spent + expected < until * self.seconds

    @contextmanager
    def stoppable(self) -> Iterator[None]:
        """Turn Ctrl-C inside the block into the end of all steps, and go on behind the block."""
        try:
            yield
        except KeyboardInterrupt:
            self.stopped = True
