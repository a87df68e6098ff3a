"""Menus as a person writes them, and the order in which their settings are measured."""

from __future__ import annotations

from flowerpress.compression import PRESETS
from flowerpress.compression.rates.menu import MENUS, menu

__all__ = ["read_menu", "split_codecs", "spread_order"]


def read_menu(text: str) -> tuple[str, ...]:
    """Return the settings of ``rd``, ``mixed``, ..., or of codecs separated by commas.

    A name that is both a menu and a codec is the menu.

    Raises:
        UnknownNameError: neither a menu nor codecs.
        ConfigError: a setting that cannot be used.
    """
    parts = split_codecs(text)
    alone = text.strip()
    if alone in MENUS or (len(parts) < 2 and "(" not in alone and alone not in PRESETS):
        return menu(alone)
    return menu(parts)


def split_codecs(text: str) -> list[str]:
    """Split at commas outside parentheses; empty parts are left out."""
    parts, depth, start = [], 0, 0
    for at, char in enumerate(f"{text},"):
        depth += (char == "(") - (char == ")")
        if char == "," and depth <= 0:
            parts.append(text[start:at].strip())
            start = at + 1
    parts.append(text[start:].strip())
    return [part for part in parts if part]


def spread_order(count: int) -> list[int]:
    """Return 0 .. count - 1 so that each beginning of it covers the range: ends, middle, quarters.

    Whatever the time suffices for is then a coarser menu, and not one without an end.
    """
    order = [0, count - 1] if count > 1 else list(range(count))
    step = count - 1
    while len(order) < count:
        step = (step + 1) // 2
        order += [at for at in range(0, count, step) if at not in order]
    return order
