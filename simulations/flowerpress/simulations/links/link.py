"""One client's link, all clients' links, and how a rate is written."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from flowerpress.compression.errors import ConfigError

__all__ = ["LONGEST", "UNLIMITED", "Link", "Links", "number", "read_rate"]

_RATES = (1.0, 1e12)
"""Bits a second: from what takes hours for a number to more than any link has."""

LONGEST = 86_400.0
"""Seconds of latency or training."""

UNLIMITED = "unlimited"
_RATE = re.compile(r"(\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)([kMG]?)")
_POWERS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}


@dataclass(frozen=True)
class Link:
    """One client's connection: rates in bits a second, times in seconds.

    Raises:
        ConfigError: a rate or a time out of range.
    """

    uplink: float
    downlink: float = math.inf
    latency: float = 0.0
    compute: float = 0.0

    def __post_init__(self) -> None:
        low, high = _RATES
        for name, rate in (("uplink", self.uplink), ("downlink", self.downlink)):
            if not low <= rate <= high and not (name == "downlink" and rate == math.inf):
                raise ConfigError(
                    f"{name} of a link is {rate:g} bits a second; it must be from {low:g} to "
                    f"{high:g}"
                )
        for name, seconds in (("latency", self.latency), ("compute", self.compute)):
            if not 0.0 <= seconds <= LONGEST:
                raise ConfigError(
                    f"{name} of a link is {seconds:g} s; it must be from 0 to {LONGEST:g}"
                )

    def seconds(self, down: int, up: int, *, trained: bool = True) -> float:
        """Return how long a client takes from the server's message to its reply's arrival.

        ``down`` and ``up`` are bytes; ``compute`` only counts where the client ``trained``.
        """
        moved = 8 * down / self.downlink + 8 * up / self.uplink
        return self.latency + moved + (self.compute if trained else 0.0)


@dataclass(frozen=True)
class Links:
    """The links of all clients, by partition."""

    links: tuple[Link, ...]

    def __len__(self) -> int:
        return len(self.links)

    def __getitem__(self, partition: int) -> Link:
        return self.links[partition]

    def rate(self, partition: int) -> float:
        """Return a client's uplink in bits a second."""
        return self.links[partition].uplink


def read_rate(value: object, what: str, *, unlimited: bool = False) -> float:
    """Return bits a second of a number or a text such as ``64k``, ``2.5M`` or ``1e6``.

    ``unlimited`` allows that word, which gives infinity. Raises ConfigError, naming ``what``.
    """
    if isinstance(value, str) and unlimited and value.strip() == UNLIMITED:
        return math.inf
    if isinstance(value, str):
        match = _RATE.fullmatch(value.strip())
        rate = float(match[1]) * _POWERS[match[2]] if match else math.nan
    else:
        rate = number(value)
    low, high = _RATES
    if not low <= rate <= high:
        also = f", or {UNLIMITED}" * unlimited
        raise ConfigError(
            f"{what} is {value!r}; it must be bits a second from {low:g} to {high:g}, "
            f"such as 64k or 20M{also}"
        )
    return rate


def number(value: object) -> float:
    """Return a number as float, and anything else as NaN."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan
