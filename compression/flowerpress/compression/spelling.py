"""How a person writes a choice with parameters: ``name`` or ``name(key=value, key=value)``."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import TypeVar

from flowerpress.compression.errors import ConfigError, UnknownNameError, nearest

__all__ = ["build", "is_file_name", "parse_call"]

T = TypeVar("T")

_CALL = re.compile(r"\s*([\w.-]+)\s*(?:\(([^()]*)\))?\s*")


def parse_call(text: str) -> tuple[str, dict[str, str]]:
    """Split ``stc(density=0.01)`` into ``("stc", {"density": "0.01"})``.

    Raises:
        ConfigError: not of that form, or a key given twice.
    """
    match = _CALL.fullmatch(text)
    if not match:
        raise ConfigError(f"{text!r} is not of the form name or name(key=value, ...)")
    name, inside = match.groups()
    arguments: dict[str, str] = {}
    for part in filter(None, (p.strip() for p in (inside or "").split(","))):
        key, equals, value = (p.strip() for p in part.partition("="))
        if not equals or not key or not value:
            raise ConfigError(f"{part!r} in {text!r} is not of the form key=value")
        if key in arguments:
            raise ConfigError(f"{key!r} is given twice in {text!r}")
        arguments[key] = value
    return name, arguments


def is_file_name(text: str) -> bool:
    """Whether ``text`` names a policy or plan rather than a codec."""
    return text.strip().endswith((".toml", ".json"))


def build(kind: str, text: str, known: Mapping[str, type[T]]) -> T:
    """Return the dataclass of ``known`` that ``text`` names, with its fields set.

    Fields are int, float or str and get parsed as such; those not named keep their defaults.

    Raises:
        UnknownNameError: no such name, or no such parameter; ``kind`` says of what.
        ConfigError: a value that cannot be read, or that the dataclass refuses.
    """
    try:
        name, arguments = parse_call(text)
    except ConfigError as error:
        raise ConfigError(f"{kind} {error}{_usage(text, known)}") from None
    if name not in known:
        raise UnknownNameError(kind, name, known)
    choice = known[name]
    # Fields are annotated with plain type names, which dataclasses keep as strings.
    fields = {f.name: str(f.type) for f in dataclasses.fields(choice)}  # type: ignore[arg-type]
    values: dict[str, int | float | str] = {}
    for key, value in arguments.items():
        if key not in fields:
            raise UnknownNameError(f"parameter of {name}", key, fields)
        values[key] = _parse(value, fields[key], f"{key} of {name}")
    return choice(**values)


def _usage(text: str, known: Mapping[str, type[T]]) -> str:
    """Return how the choice at the start of ``text`` is written, else which choices there are."""
    name = text.partition("(")[0].strip()
    if name not in known:
        return nearest(name, known)
    fields = dataclasses.fields(known[name])  # type: ignore[arg-type]
    if not fields:
        return f"; {name} takes no parameters"
    return f"; write {name}({', '.join(f'{f.name}={f.default}' for f in fields)})"


def _parse(value: str, kind: str, what: str) -> int | float | str | bool:
    kind = kind.removesuffix(" | None")
    if kind == "bool":
        if value.lower() not in _TRUTH:
            raise ConfigError(f"{what} is {value!r}; it must be true or false")
        return _TRUTH[value.lower()]
    try:
        if kind == "str":
            return value
        return int(value) if kind == "int" else float(value)
    except ValueError:
        raise ConfigError(
            f"{what} is {value!r}; it must be {'an integer' if kind == 'int' else 'a number'}"
        ) from None


_TRUTH = {"true": True, "false": False}
