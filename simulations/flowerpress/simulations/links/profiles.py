"""Links as networks give them: a middle client's rates and latency, and how far others are from it.

=============  ==========  ===========  ============  =============================================
name           up          down         there, back   from
=============  ==========  ===========  ============  =============================================
``lte``        6 Mbit/s    13 Mbit/s    70 ms         medians of Huang et al., "A Close Examination
                                                      of Performance and Power Characteristics of
                                                      4G LTE Networks", MobiSys 2012
``3g``         768 kbit/s  1.6 Mbit/s   300 ms        WebPageTest's profile "3G"
                                                      (connectivity.ini)
``wifi``       5 Mbit/s    20 Mbit/s    4 ms          WebPageTest's profile "FIOS": at home the line
                                                      behind the access point limits, not the radio
``lorawan``    see below   as up        1 s           LoRaWAN Regional Parameters RP002, EU863-870:
                                                      data rates 0 to 5 and RECEIVE_DELAY1; ETSI
                                                      EN 300 220: a hundredth of the time on the air
=============  ==========  ===========  ============  =============================================

Every number can be set: ``3g(up=400k,latency=0.2)``. The spread between clients is an assumption: a
client's rates are those of the middle one times a factor, its latency is divided by it, and the
factor's logarithm is normal with standard deviation ``spread``. With .5 one client in six has less
than 0.61 of the middle rates, and one in six more than 1.65 of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flowerpress.compression.errors import ConfigError
from flowerpress.simulations.links.link import Link, Links, read_rate

if TYPE_CHECKING:
    import numpy as np

__all__ = ["LoRaWAN", "Lte", "ThirdGeneration", "Wifi"]

_FARTHEST = 3.0
"""Standard deviations from the middle: nobody's link is unlike any of its kind."""


@dataclass(frozen=True)
class _Spread:
    """Rates in bits a second as text, times in seconds; ``compute`` is training of a round."""

    up: str
    down: str
    latency: float
    spread: float = 0.5
    compute: float = 0.0

    def links(self, clients: int, rng: np.random.Generator) -> Links:
        """Draw a factor for each client."""
        if not 0.0 <= self.spread <= 2.0:
            raise ConfigError(f"spread of links is {self.spread:g}; it must be from 0 to 2")
        up, down = read_rate(self.up, "up of links"), read_rate(self.down, "down of links")
        drawn = rng.standard_normal(clients).clip(-_FARTHEST, _FARTHEST)
        factors = [math.exp(self.spread * float(z)) for z in drawn]
        return Links(tuple(Link(up * f, down * f, self.latency / f, self.compute) for f in factors))


@dataclass(frozen=True)
class Lte(_Spread):
    """``lte``: a mobile network of the fourth generation."""

    up: str = "6M"
    down: str = "13M"
    latency: float = 0.07


@dataclass(frozen=True)
class ThirdGeneration(_Spread):
    """``3g``: a mobile network of the third generation."""

    up: str = "768k"
    down: str = "1.6M"
    latency: float = 0.3


@dataclass(frozen=True)
class Wifi(_Spread):
    """``wifi``: a home's access point and the line behind it."""

    up: str = "5M"
    down: str = "20M"
    latency: float = 0.004


@dataclass(frozen=True)
class LoRaWAN:
    """``lorawan``: like a long-range radio of few bits: each client has one of six data rates.

    Only the rates are those of LoRaWAN: its frames of 51 to 222 bytes, their headers and their loss
    are left out, so real ones are slower still.

    Args:
        duty: part of the time for which a sender may be on the air.
        latency: seconds for both ways.
        compute: seconds of training for each round.
    """

    duty: float = 0.01
    latency: float = 1.0
    compute: float = 0.0

    def links(self, clients: int, rng: np.random.Generator) -> Links:
        """Draw a data rate for each client, all equally likely."""
        if not 0.005 <= self.duty <= 1.0:
            raise ConfigError(f"duty of lorawan is {self.duty:g}; it must be from 0.005 to 1")
        rates = [self.duty * _DATA_RATES[at] for at in rng.integers(len(_DATA_RATES), size=clients)]
        return Links(tuple(Link(rate, rate, self.latency, self.compute) for rate in rates))


_DATA_RATES = (250.0, 440.0, 980.0, 1760.0, 3125.0, 5470.0)
"""Bits a second of spreading factors 12 to 7 at 125 kHz."""
