"""Numbers for people: bytes, rates, ratios, shares and times as short texts."""

from __future__ import annotations

import math

__all__ = ["NOTHING", "duration", "human_bytes", "human_rate", "human_ratio", "percent"]

NOTHING = "–"
"""Stands where nothing was measured."""


def human_bytes(count: float | None) -> str:
    """Return e.g. "512 B", "1.50 KiB", "12.3 MiB": three digits, powers of 1024."""
    if count is None:
        return NOTHING
    if count < 1024:
        return f"{count:.0f} B"
    value = float(count)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        value /= 1024
        if value < 999.5 or unit == "TiB":
            break
    return f"{_three(value)} {unit}"


def human_rate(bits: float) -> str:
    """Return e.g. "64 kbit/s", "2.5 Mbit/s", "unlimited"; powers of 1000."""
    if bits == math.inf:
        return "unlimited"
    for factor, unit in ((1e9, "Gbit/s"), (1e6, "Mbit/s"), (1e3, "kbit/s")):
        if bits >= factor:
            return f"{bits / factor:.3g} {unit}"
    return f"{bits:.3g} bit/s"


def human_ratio(value: float | None) -> str:
    """Return e.g. "3.47x", "34.7x", "347x"."""
    return NOTHING if value is None else f"{_three(value)}x"


def percent(value: float | None, digits: int = 1) -> str:
    """Return a fraction of 1 as e.g. "91.2%"."""
    return NOTHING if value is None else f"{100 * value:.{digits}f}%"


def duration(seconds: float | None) -> str:
    """Return e.g. "4.2 s", "1:32", "1:02:03"."""
    if seconds is None:
        return NOTHING
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _three(value: float) -> str:
    if value < 9.995:
        return f"{value:.2f}"
    return f"{value:.1f}" if value < 99.95 else f"{value:.0f}"
