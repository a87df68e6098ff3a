"""Rules that give every client a link: rates spaced by their logarithm, or one for all."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from flowerpress.compression.errors import ConfigError
from flowerpress.simulations.links.link import UNLIMITED, Link, Links, read_rate

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Loguniform", "Same", "Scheme"]


class Scheme(Protocol):
    """A rule that gives every client a link."""

    def links(self, clients: int, rng: np.random.Generator) -> Links:
        """Return the links of ``clients`` clients."""


@dataclass(frozen=True)
class Loguniform:
    """``loguniform``: from ``low`` to ``high``, each rate the same multiple of the one below."""

    low: str = "64k"
    high: str = "20M"
    down: str = UNLIMITED
    latency: float = 0.0
    compute: float = 0.0

    def links(self, clients: int, rng: np.random.Generator) -> Links:
        """Space them; one client alone gets the middle."""
        low, high = (
            read_rate(text, f"{name} of loguniform")
            for name, text in (("low", self.low), ("high", self.high))
        )
        if low > high:
            raise ConfigError(f"low of loguniform is {self.low}, above high, which is {self.high}")
        # A wrong value on a command line must not wait for it.
        import numpy as np

        rates = np.geomspace(low, high, clients) if clients > 1 else [math.sqrt(low * high)]
        shuffled = [float(rates[at]) for at in rng.permutation(clients)]
        down = read_rate(self.down, "down of loguniform", unlimited=True)
        return Links(tuple(Link(rate, down, self.latency, self.compute) for rate in shuffled))


@dataclass(frozen=True)
class Same:
    """``same``: one rate for all."""

    rate: str = "1M"
    down: str = UNLIMITED
    latency: float = 0.0
    compute: float = 0.0

    def links(self, clients: int, rng: np.random.Generator) -> Links:
        """Repeat it; nothing is drawn."""
        rate = read_rate(self.rate, "rate of same")
        down = read_rate(self.down, "down of same", unlimited=True)
        return Links((Link(rate, down, self.latency, self.compute),) * clients)
