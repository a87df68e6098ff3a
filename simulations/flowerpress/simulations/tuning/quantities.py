"""How a person writes a size or a rate: 8192, 8k, 8KiB; 64k or 2M bits a second."""

from __future__ import annotations

import math
import re

from flowerpress.compression.errors import ConfigError

__all__ = ["bits_per_second", "byte_count"]

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}
_NUMBER = r"(\d+(?:\.\d*)?|\.\d+)(?:e([+-]?\d{1,2}))?\s*"


def byte_count(text: str, what: str) -> int:
    """Return a number of bytes: ``8192``, ``8k`` (8,000), ``8KiB`` (8,192), ``1.5MB``.

    Raises:
        ConfigError: not of that form, or less than one byte; the message begins with ``what``.
    """
    match = re.fullmatch(_NUMBER + r"([kmg]?i?)b?", text.strip().lower())
    value = _value(match)
    if not 1 <= value < 2**63:
        raise ConfigError(f"{what} {text}: is not a number of bytes such as 8192, 8k or 8KiB")
    return int(value)


def bits_per_second(text: str, what: str) -> float:
    """Return a rate in bits a second: ``64000``, ``64k``, ``2M``, ``64kbit/s``, ``1.5 Mbps``.

    Raises:
        ConfigError: not of that form, or zero; the message begins with ``what``.
    """
    match = re.fullmatch(_NUMBER + r"([kmg]?)(?:bit/s|bits/s|bps|b/s)?", text.strip().lower())
    value = math.nan if "B" in text else _value(match)  # B: bytes
    if not 0 < value < 1e18:
        raise ConfigError(f"{what} {text}: is not a rate in bits a second such as 64k or 2M")
    return value


def _value(match: re.Match[str] | None) -> float:
    """Return the number times its unit; NaN, which is in no range, where there is none."""
    if match is None or match[3] not in _UNITS:
        return math.nan
    return float(match[1]) * 10.0 ** int(match[2] or 0) * _UNITS[match[3]]
