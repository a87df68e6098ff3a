"""Checked values of a file that a person wrote: every message says where, what, and what may stand.

A parsed document is looked over as a whole first (``check_document``): what is nested too deeply,
too long or no plain value is refused there, so that nothing later needs to expect it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from flowerpress.compression.errors import ConfigError, UnknownNameError
from flowerpress.compression.presets import PRESETS, preset

__all__ = [
    "LONGEST_TEXT",
    "check_document",
    "choice",
    "number",
    "read_text",
    "setting",
    "shown",
    "table",
    "text",
    "whole",
]

LONGEST_TEXT = 4096
"""Characters of any one string, and of any key."""

_LONGEST_SETTING = 200
_DEEPEST = 4
_MOST_VALUES = 100_000
_LARGEST = 1 << 63


def read_text(path: Path, what: str, largest: int) -> str:
    """Return the text of a file that is ``what``, of at most ``largest`` bytes.

    Raises:
        ConfigError: no regular file, no UTF-8, too large, or not to be read.
    """
    # A pipe or a device would keep us waiting, or never end.
    if not path.is_file():
        why = "it is no file" if path.exists() else "no such file"
        raise ConfigError(f"cannot read {str(path)!r}: {why}")
    try:
        with path.open("rb") as file:
            content = file.read(largest + 1)
        if len(content) > largest:
            raise ConfigError(f"{str(path)!r} is no {what}: it has more than {largest} bytes")
        return content.decode()
    except OSError as error:
        raise ConfigError(f"cannot read {str(path)!r}: {error.strerror or error}") from error
    except UnicodeDecodeError:
        raise ConfigError(f"{str(path)!r} is no {what}: it is not UTF-8 text") from None


def check_document(document: object, where: str) -> None:
    """Refuse what no configuration needs, whatever its keys.

    Raises:
        ConfigError: nested more than four deep, an overlong string or key, an integer of more than
            64 bits, a date, or 100,000 values and more.
    """
    seen = 0
    left: list[tuple[object, str, int]] = [(document, where, 0)]
    while left:
        value, place, depth = left.pop()
        seen += 1
        if seen > _MOST_VALUES:
            raise ConfigError(f"{where}: more than {_MOST_VALUES} values")
        if isinstance(value, dict | list):
            if depth > _DEEPEST:
                raise ConfigError(f"{place}: nested deeper than anything that may stand here")
            pairs: Iterable[tuple[object, object]] = (
                value.items() if isinstance(value, dict) else enumerate(value)
            )
            for key, inner in pairs:
                if isinstance(key, str) and len(key) > LONGEST_TEXT:
                    raise ConfigError(f"{place}: a key of {len(key)} characters")
                left.append((inner, f"{place}: {shown(key)}" if depth < 1 else place, depth + 1))
        elif isinstance(value, str):
            if len(value) > LONGEST_TEXT:
                raise ConfigError(
                    f"{place}: a text of {len(value)} characters; at most {LONGEST_TEXT} may stand"
                )
            if not value.isprintable():
                raise ConfigError(
                    f"{place}: the text {shown(value)} has line breaks or invisible characters"
                )
        elif isinstance(value, int) and not -_LARGEST <= value < _LARGEST:
            raise ConfigError(f"{place}: an integer of {value.bit_length()} bits; 64 are the most")
        elif not isinstance(value, int | float | None):
            raise ConfigError(
                f"{place}: a {type(value).__name__}, where only numbers, texts and tables may stand"
            )


def shown(value: object) -> str:
    """Return ``value`` for a message: as it was written, but never long."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and abs(value) >= _LARGEST:
        return f"an integer of {value.bit_length()} bits"
    if isinstance(value, str):
        return repr(value if len(value) <= 60 else value[:57] + "...")
    return repr(value)[:60]


def table(value: object, where: str, known: Iterable[str]) -> dict[str, Any]:
    """Return a table none of whose keys is unknown.

    Raises:
        UnknownNameError: a key that is not among ``known``; the nearest is named.
        ConfigError: no table.
    """
    if not isinstance(value, dict):
        raise ConfigError(f"{where} is {shown(value)}; it must be a table")
    names = tuple(known)
    for key in value:
        if key not in names:
            raise UnknownNameError(f"key in {where}", str(key)[:60], names)
    return value


def text(value: object, where: str, *, longest: int = LONGEST_TEXT) -> str:
    """Return a text that is not blank.

    Raises:
        ConfigError: something else.
    """
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(f"{where} is {shown(value)}; it must be a text")
    if len(value) > longest:
        raise ConfigError(f"{where} has {len(value)} characters; at most {longest} are allowed")
    return value


def choice(value: object, where: str, known: Iterable[str]) -> str:
    """Return one of ``known``.

    Raises:
        UnknownNameError: another text; the nearest is named.
        ConfigError: no text.
    """
    names = tuple(known)
    name = text(value, where)
    if name not in names:
        raise UnknownNameError(f"value of {where}", name[:60], names)
    return name


def number(value: object, where: str, low: float, high: float, unit: str = "") -> float:
    """Return a number between ``low`` and ``high``; true and false are none.

    Raises:
        ConfigError: something else, NaN included.
    """
    wrong = isinstance(value, bool) or not isinstance(value, int | float)
    if wrong or not low <= value <= high:  # type: ignore[operator]
        unit = f" {unit}" if unit else ""
        raise ConfigError(
            f"{where} is {shown(value)}; it must be a number{unit} from {low:g} to {high:g}"
        )
    return float(value)  # type: ignore[arg-type]


def whole(value: object, where: str, low: int, high: int, unit: str = "") -> int:
    """Return an integer between ``low`` and ``high``; 2.0 and true are none.

    Raises:
        ConfigError: something else.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        unit = f" of {unit}" if unit else ""
        raise ConfigError(
            f"{where} is {shown(value)}; it must be a whole number{unit} from {low} to {high}"
        )
    return value


def setting(value: object, where: str) -> str:
    """Return the text of a codec with its parameters, which exist and are allowed.

    Raises:
        UnknownNameError: no such codec or parameter; the nearest is named.
        ConfigError: no text, or a parameter out of range.
    """
    written = text(value, where, longest=_LONGEST_SETTING)
    name = written.partition("(")[0].strip()
    if name not in PRESETS:
        raise UnknownNameError(f"codec in {where}", name, PRESETS)
    try:
        preset(written)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    return written
