"""How many updates a round of training needs, and how long it waits for them."""

from __future__ import annotations

import math
import time

from flowerpress.compression import ConfigError

__all__ = ["Closing", "Quorum"]


class Quorum:
    """Updates without which a round changes nothing.

    Args:
        least: a count from 1 up, or a share of the asked clients: a float above 0 and up to 1.0.

    Raises:
        ConfigError: neither.
    """

    def __init__(self, least: int | float) -> None:
        share = isinstance(least, float)
        if isinstance(least, bool) or not (0 < least <= 1.0 if share else least >= 1):
            raise ConfigError(
                f"quorum is {least}; it must be a count from 1 up, or a share above 0.0 and up to "
                "1.0 of the clients that are asked"
            )
        self._least = least

    def needed(self, asked: int) -> int:
        """Return how many updates a round needs in which ``asked`` clients were asked."""
        if isinstance(self._least, float):
            # A share that was written in decimals is not to ask for one more than it says.
            return max(1, math.ceil(self._least * asked - 1e-9))
        return self._least


class Closing:
    """When the phase under way is over.

    Args:
        deadline: seconds of a round of training; None: no limit of its own.

    Raises:
        ConfigError: not a positive number.
    """

    def __init__(self, deadline: float | None) -> None:
        if deadline is not None and not 0 < deadline < math.inf:
            raise ConfigError(f"deadline is {deadline}; it must be a positive number of seconds")
        self.deadline = deadline
        self._closes = math.inf

    def begin(self, *, train: bool) -> None:
        """Note that a phase begins; only training has a deadline."""
        self._closes = math.inf
        if train and self.deadline is not None:
            self._closes = time.monotonic() + self.deadline

    def left(self, timeout: float | None) -> float | None:
        """Return how many seconds a reply may still take, and ``timeout`` at most."""
        left = max(0.0, self._closes - time.monotonic())
        if timeout is not None:
            left = min(left, timeout)
        return None if left == math.inf else left
