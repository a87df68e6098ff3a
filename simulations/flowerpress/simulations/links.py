"""Simulated links: how fast each client's connection is, and how long a message takes on it.

Links are written as ``name(key=value)`` or as the name of a file:

==================================  ==========================================================
``loguniform(low=64k,high=20M)``    uplink rates spaced evenly in their logarithm, one for each
                                    client, in an order shuffled by the seed
``same(rate=1M)``                   one rate for all
``links.toml``, ``links.json``      ``uplink``, ``downlink``, ``latency``, ``compute``: each a
                                    number or a list with one for each client; a JSON list alone
                                    is the uplinks
==================================  ==========================================================

Rates are bits a second; ``k``, ``M`` and ``G`` are powers of 1000. Both names also take ``down``
(the downlink rate of every client; not limited by default), ``latency`` (seconds for both ways of a
round together) and ``compute`` (seconds of training for each round). Nothing here waits or
measures: a time is worked out from bytes and rates, and the same text, clients and seed give the
same times.
"""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from flowerpress.compression.errors import ConfigError, UnknownNameError
from flowerpress.compression.spelling import build

if TYPE_CHECKING:
    import numpy as np

__all__ = ["SCHEMES", "Link", "Links", "Loguniform", "Same", "absolute", "read_links", "read_rate"]

_RATES = (1.0, 1e12)
"""Bits a second: from what takes hours for a number to more than any link has."""

_LONGEST = 86_400.0
"""Seconds of latency or training."""

_LARGEST_FILE = 1 << 22

_UNLIMITED = "unlimited"
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
            if not 0.0 <= seconds <= _LONGEST:
                raise ConfigError(
                    f"{name} of a link is {seconds:g} s; it must be from 0 to {_LONGEST:g}"
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


class Scheme(Protocol):
    """A rule that gives every client a link."""

    def links(self, clients: int, rng: np.random.Generator) -> Links:
        """Return the links of ``clients`` clients."""


@dataclass(frozen=True)
class Loguniform:
    """``loguniform``: from ``low`` to ``high``, each rate the same multiple of the one below."""

    low: str = "64k"
    high: str = "20M"
    down: str = _UNLIMITED
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
    down: str = _UNLIMITED
    latency: float = 0.0
    compute: float = 0.0

    def links(self, clients: int, rng: np.random.Generator) -> Links:
        """Repeat it; nothing is drawn."""
        rate = read_rate(self.rate, "rate of same")
        down = read_rate(self.down, "down of same", unlimited=True)
        return Links((Link(rate, down, self.latency, self.compute),) * clients)


SCHEMES: dict[str, type[Scheme]] = {"loguniform": Loguniform, "same": Same}


def read_links(text: str, clients: int, seed: int) -> Links:
    """Return the links that ``text`` names, for ``clients`` clients.

    Raises:
        UnknownNameError: no such name, parameter or key.
        ConfigError: a value out of range; a file that cannot be read, or that is not for so many
            clients.
    """
    path = _file(text)
    if path is not None:
        return _from_file(path, clients)
    # A stream of its own: links must not follow the draws of the partition.
    import numpy as np

    return build("links", text, SCHEMES).links(clients, np.random.default_rng([seed, 0x11]))


def read_rate(value: object, what: str, *, unlimited: bool = False) -> float:
    """Return bits a second of a number or a text such as ``64k``, ``2.5M`` or ``1e6``.

    ``unlimited`` allows that word, which gives infinity. Raises ConfigError, naming ``what``.
    """
    if isinstance(value, str) and unlimited and value.strip() == _UNLIMITED:
        return math.inf
    if isinstance(value, str):
        match = _RATE.fullmatch(value.strip())
        rate = float(match[1]) * _POWERS[match[2]] if match else math.nan
    else:
        rate = _number(value)
    low, high = _RATES
    if not low <= rate <= high:
        also = f", or {_UNLIMITED}" * unlimited
        raise ConfigError(
            f"{what} is {value!r}; it must be bits a second from {low:g} to {high:g}, "
            f"such as 64k or 20M{also}"
        )
    return rate


def absolute(text: str) -> str:
    """Return ``text`` with the path made absolute if it names a file, else as it is."""
    path = _file(text)
    return text if path is None else str(path.expanduser().absolute())


def _file(text: str) -> Path | None:
    return Path(text) if text.endswith((".json", ".toml")) else None


_KEYS = ("uplink", "downlink", "latency", "compute")


def _from_file(path: Path, clients: int) -> Links:
    data = _load(path)
    table: Mapping[str, Any] = data if isinstance(data, Mapping) else {"uplink": data}
    for key in table:
        if key not in _KEYS:
            raise UnknownNameError(f"key in {path}", str(key), _KEYS)
    if "uplink" not in table:
        raise ConfigError(f"{path}: has no 'uplink', the clients' rates in bits a second")
    columns: dict[str, list[float]] = {}
    for key, given in table.items():
        values = given if isinstance(given, list) else [given] * clients
        if len(values) != clients:
            raise ConfigError(
                f"{path}: {key} has {len(values)} values; there are {clients} clients"
            )
        columns[key] = [
            _value(key, value, f"{path}: {key}[{at}]") for at, value in enumerate(values)
        ]
    rows: Sequence[dict[str, float]] = [
        {key: column[at] for key, column in columns.items()} for at in range(clients)
    ]
    try:
        return Links(tuple(Link(**row) for row in rows))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _load(path: Path) -> object:
    try:
        with path.open("rb") as file:
            raw = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    if len(raw) > _LARGEST_FILE:
        raise ConfigError(f"{path}: longer than {_LARGEST_FILE} bytes")
    try:
        text = raw.decode()
        return json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not valid {path.suffix[1:].upper()}: {error}") from error


def _value(key: str, value: object, what: str) -> float:
    if key in ("uplink", "downlink"):
        return read_rate(value, what, unlimited=key == "downlink")
    seconds = _number(value)
    if not 0.0 <= seconds <= _LONGEST:
        raise ConfigError(f"{what} is {value!r}; it must be seconds from 0 to {_LONGEST:g}")
    return seconds


def _number(value: object) -> float:
    """Return a number as float, and anything else as NaN."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan
