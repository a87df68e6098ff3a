"""Strict reading of JSON objects: every key is there, has its type, and no other key is.

Used for the files of a run. Messages begin with ``where``, which names the file and the line.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

from flowerpress.compression.errors import ConfigError, nearest

__all__ = ["Fields", "parse", "plain"]


class Fields:
    """One JSON object being read key by key; ``done`` refuses the keys that nobody asked for."""

    def __init__(self, data: object, where: str) -> None:
        if not isinstance(data, dict):
            raise ConfigError(f"{where}: expected a JSON object, found {_kind(data)}")
        self.where = where
        self._data: dict[str, Any] = data
        self._asked: set[str] = set()

    def __contains__(self, key: str) -> bool:
        return key in self._data

    def raw(self, key: str) -> object:
        """Return the value as it is; a missing key is a ConfigError."""
        self._asked.add(key)
        if key not in self._data:
            raise ConfigError(f"{self.where}: missing key {key!r}")
        return self._data[key]

    def integer(self, key: str) -> int:
        """Return an integer of at least 0 (all integers of a run are counts or numbers)."""
        value = self.raw(key)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise self._wrong(key, "an integer of at least 0", value)
        return value

    def number(self, key: str) -> float:
        """Return a finite number."""
        value = _number(self.raw(key))
        if value is None:
            raise self._wrong(key, "a finite number", self.raw(key))
        return value

    def maybe_number(self, key: str) -> float | None:
        """Return a finite number, or None for null."""
        return None if self.raw(key) is None else self.number(key)

    def maybe_numbers(self, key: str) -> tuple[float | None, ...] | None:
        """Return a list of finite numbers and nulls, or None for null."""
        value = self.raw(key)
        if value is None:
            return None
        numbers = [_number(item) for item in self.items(key)]
        for item, number in zip(self.items(key), numbers, strict=True):
            if number is None and item is not None:
                raise self._wrong(key, "a list of finite numbers and nulls", item)
        return tuple(numbers)

    def text(self, key: str) -> str:
        """Return a string."""
        value = self.raw(key)
        if not isinstance(value, str):
            raise self._wrong(key, "a string", value)
        return value

    def flag(self, key: str) -> bool:
        """Return true or false."""
        value = self.raw(key)
        if not isinstance(value, bool):
            raise self._wrong(key, "true or false", value)
        return value

    def items(self, key: str) -> list[Any]:
        """Return a list."""
        value = self.raw(key)
        if not isinstance(value, list):
            raise self._wrong(key, "a list", value)
        return value

    def mapping(self, key: str) -> dict[str, Any]:
        """Return an object as it is."""
        value = self.raw(key)
        if not isinstance(value, dict):
            raise self._wrong(key, "an object", value)
        return value

    def counts(self, key: str) -> dict[str, int]:
        """Return an object whose values are integers of at least 0."""
        inner = Fields(self.mapping(key), f"{self.where}: {key}")
        return {name: inner.integer(name) for name in self.mapping(key)}

    def texts(self, key: str) -> dict[str, str]:
        """Return an object whose values are strings."""
        inner = Fields(self.mapping(key), f"{self.where}: {key}")
        return {name: inner.text(name) for name in self.mapping(key)}

    def span(self, key: str) -> tuple[int, int] | None:
        """Return two integers, the first no larger than the second, or None for null."""
        value = self.raw(key)
        if value is None:
            return None
        pair = self.items(key)
        whole = [isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in pair]
        if len(pair) != 2 or not all(whole) or pair[0] > pair[1]:
            raise self._wrong(key, "the least and the largest of some integers", value)
        return pair[0], pair[1]

    def done(self) -> None:
        """Refuse keys that were never asked for."""
        for key in self._data:
            if key not in self._asked:
                raise ConfigError(f"{self.where}: unknown key {key!r}{nearest(key, self._asked)}")

    def _wrong(self, key: str, wanted: str, value: object) -> ConfigError:
        return ConfigError(f"{self.where}: {key!r} must be {wanted}, found {_kind(value)}")


def parse(text: str | bytes, where: str) -> object:
    """Return the JSON value in ``text``; anything that is not JSON (NaN too) is a ConfigError."""

    def refuse(constant: str) -> object:
        raise ValueError(f"{constant} is not JSON")

    try:
        return json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: not valid JSON: {error}") from error


def plain(value: object) -> Any:
    """Return ``value`` with what JSON can hold: NumPy scalars as numbers, NaN and infinity as None.

    JSON has no NaN: a loss that diverged is written as null.
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value)


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _kind(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
