"""Links from a file: TOML or JSON, one value for all clients or one for each."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flowerpress.compression.errors import ConfigError, UnknownNameError
from flowerpress.simulations.links.link import LONGEST, Link, Links, number, read_rate

__all__ = ["links_of_file"]

_LARGEST_FILE = 1 << 22
_KEYS = ("uplink", "downlink", "latency", "compute")


def links_of_file(path: Path, clients: int) -> Links:
    """Return what the file says for each of ``clients`` clients.

    Raises:
        ConfigError: it cannot be read, is not for so many clients, or has a value out of range.
        UnknownNameError: a key that is none.
    """
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
    seconds = number(value)
    if not 0.0 <= seconds <= LONGEST:
        raise ConfigError(f"{what} is {value!r}; it must be seconds from 0 to {LONGEST:g}")
    return seconds
