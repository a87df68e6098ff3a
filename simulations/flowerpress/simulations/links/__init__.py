"""Simulated links: how fast each client's connection is, and how long a message takes on it.

Links are written as ``name(key=value)`` or as the name of a file:

==================================  ==========================================================
``loguniform(low=64k,high=20M)``    uplink rates spaced evenly in their logarithm, one for each
                                    client, in an order shuffled by the seed
``same(rate=1M)``                   one rate for all
``lte``, ``3g``, ``wifi``,          what such networks have, different for each client: see
``lorawan``                         ``links.profiles``, which also says where the numbers are from
``links.toml``, ``links.json``      ``uplink``, ``downlink``, ``latency``, ``compute``: each a
                                    number or a list with one for each client; a JSON list alone
                                    is the uplinks
==================================  ==========================================================

Rates are bits a second; ``k``, ``M`` and ``G`` are powers of 1000. The first two also take ``down``
(the downlink rate of every client; not limited by default), ``latency`` (seconds for both ways of a
round together) and ``compute`` (seconds of training for each round). Nothing here waits or
measures: a time is worked out from bytes and rates, and the same text, clients and seed give the
same times.
"""

from __future__ import annotations

from pathlib import Path

from flowerpress.compression.spelling import build
from flowerpress.simulations.links.files import links_of_file
from flowerpress.simulations.links.link import Link, Links, read_rate
from flowerpress.simulations.links.profiles import LoRaWAN, Lte, ThirdGeneration, Wifi
from flowerpress.simulations.links.schemes import Loguniform, Same, Scheme

__all__ = ["SCHEMES", "Link", "Links", "absolute", "read_links", "read_rate"]

SCHEMES: dict[str, type[Scheme]] = {
    "loguniform": Loguniform,
    "same": Same,
    "lte": Lte,
    "3g": ThirdGeneration,
    "wifi": Wifi,
    "lorawan": LoRaWAN,
}


def read_links(text: str, clients: int, seed: int) -> Links:
    """Return the links that ``text`` names, for ``clients`` clients.

    Raises:
        UnknownNameError: no such name, parameter or key.
        ConfigError: a value out of range; a file that cannot be read, or that is not for so many
            clients.
    """
    path = _file(text)
    if path is not None:
        return links_of_file(path, clients)
    # A stream of its own: links must not follow the draws of the partition.
    import numpy as np

    return build("links", text, SCHEMES).links(clients, np.random.default_rng([seed, 0x11]))


def absolute(text: str) -> str:
    """Return ``text`` with the path made absolute if it names a file, else as it is."""
    path = _file(text)
    return text if path is None else str(path.expanduser().absolute())


def _file(text: str) -> Path | None:
    return Path(text) if text.endswith((".json", ".toml")) else None
