"""When a link breaks: after so many bytes, after so long, or at random times from a seed."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

from flowerpress.compression.errors import ConfigError

__all__ = ["Cut", "random_cuts"]


@dataclass(frozen=True)
class Cut:
    """One break of a link: all its connections are reset, and what was under way is lost.

    Exactly one of the first three is given, and counts from the end of the break before (for the
    first: from the begin of the proxy).

    Args:
        up: bytes that clients have sent over the link.
        down: bytes that the service has sent over it.
        seconds: time.
        outage: seconds for which the link stays away: connections are reset as soon as made.

    Raises:
        ConfigError: none or several of them, or one out of range.
    """

    up: int | None = None
    down: int | None = None
    seconds: float | None = None
    outage: float = 0.0

    def __post_init__(self) -> None:
        given = [value for value in (self.up, self.down, self.seconds) if value is not None]
        if len(given) != 1 or not 0 < given[0] < math.inf:
            raise ConfigError(
                f"{self}: a cut comes after one of up, down (bytes) or seconds, above zero"
            )
        if not 0 <= self.outage < math.inf:
            raise ConfigError(f"outage of a cut is {self.outage} s; it must be 0 or more")


def random_cuts(every: float, seed: int, outage: float = 0.0) -> Iterator[Cut]:
    """Yield cuts without end, ``every`` seconds apart on average.

    Times between them are exponential, as of breaks that do not know of each other; the same seed
    gives the same times.
    """
    rng = random.Random(seed)
    while True:
        yield Cut(seconds=max(1e-3, rng.expovariate(1 / every)), outage=outage)
