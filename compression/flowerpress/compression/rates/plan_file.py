"""Plans as files: JSON that a person can read and change."""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flowerpress.compression.errors import ConfigError, UnknownNameError
from flowerpress.compression.grouped import MOST_GROUPS
from flowerpress.compression.rates.plan import Entry, RatePlan
from flowerpress.compression.rates.reading import read_text

__all__ = ["dumps", "loads", "read", "save"]

FORMAT = "flowerpress.plan/1"
_LARGEST = 16 << 20
_MOST_TENSORS = 100_000
_LONGEST = 300
_KEYS = ("format", "manifest", "budget", "allocator", "menu", "tensors")
_ENTRY_KEYS = ("name", "codec", "groups", "bytes", "error", "sensitivity", "kept")


def dumps(plan: RatePlan) -> str:
    """Return the plan as JSON, a line for each tensor."""
    head: dict[str, Any] = {"format": FORMAT, "manifest": plan.manifest}
    if plan.target_bytes is not None:
        head["budget"] = {"target_bytes": plan.target_bytes}
    if plan.allocator:
        head["allocator"] = plan.allocator
    if plan.menu:
        head["menu"] = list(plan.menu)
    lines = [json.dumps(_entry(entry), ensure_ascii=False) for entry in plan.entries]
    start = json.dumps(head, ensure_ascii=False, indent=1)[:-2]
    rows = ",\n".join(f"  {line}" for line in lines)
    return f'{start},\n "tensors": [\n{rows}\n ]\n}}\n'


def loads(text: str, where: str) -> RatePlan:
    """Read what ``dumps`` wrote; ``where`` is named in errors.

    Raises:
        ConfigError: not a plan.
    """
    if len(text) > _LARGEST:
        raise ConfigError(f"{where}: {len(text)} characters are too many for a plan")
    try:
        found = json.loads(text, object_pairs_hook=_once, parse_constant=_refuse)
    except RecursionError:
        raise ConfigError(f"{where}: is nested too deeply for a plan") from None
    except ValueError as error:
        raise ConfigError(f"{where}: is not valid JSON: {error}") from error
    try:
        return _plan(found)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def read(path: Path) -> RatePlan:
    """Read a file.

    Raises:
        ConfigError: it cannot be read, or holds no plan.
    """
    return loads(read_text(path, "plan", _LARGEST), str(path))


def save(plan: RatePlan, path: Path) -> None:
    """Write a file, whole or not at all.

    Raises:
        ConfigError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(dumps(plan), encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise ConfigError(f"cannot write {path}: {error.strerror or error}") from error


def _entry(entry: Entry) -> dict[str, Any]:
    out: dict[str, Any] = {"name": entry.name, "codec": entry.codec}
    if entry.groups:
        out["groups"] = list(entry.groups)
    for key in ("bytes", "error", "sensitivity"):
        value = getattr(entry, key)
        if value is not None:
            out[key] = value
    if entry.kept:
        out["kept"] = True
    return out


def _plan(found: Any) -> RatePlan:
    table = _table(found, "a plan", _KEYS)
    if table.get("format") != FORMAT:
        raise ConfigError(f"format is {_shown(table.get('format'))}; this version reads {FORMAT!r}")
    budget = _table(table.get("budget", {}), "budget", ("target_bytes",))
    target = budget.get("target_bytes")
    if target is not None and (type(target) is not int or not 1 <= target < 1 << 53):
        raise ConfigError(f"budget.target_bytes is {_shown(target)}; it must be a positive integer")
    tensors = table.get("tensors")
    if not isinstance(tensors, list) or len(tensors) > _MOST_TENSORS:
        raise ConfigError("tensors must be a list, one entry for each tensor of the model")
    manifest = _text(table.get("manifest"), "manifest")
    if len(manifest) != 16 or set(manifest) - set("0123456789abcdef"):
        raise ConfigError(f"manifest is {_shown(manifest)}; it must be 16 hexadecimal digits")
    return RatePlan(
        tuple(_read_entry(each, index) for index, each in enumerate(tensors)),
        manifest,
        target,
        _texts(table.get("menu", []), "menu", 64),
        _text(table.get("allocator", ""), "allocator"),
    )


def _read_entry(found: Any, index: int) -> Entry:
    where = f"tensors[{index}]"
    table = _table(found, where, _ENTRY_KEYS)
    for key in ("name", "codec"):
        if key not in table:
            raise ConfigError(f"{where} has no {key}")
    name = _text(table["name"], f"{where}.name")
    if not name:
        raise ConfigError(f"{where}.name is empty")
    numbers = {}
    for key in ("bytes", "error", "sensitivity"):
        value = table.get(key)
        if value is not None and not (
            type(value) in (int, float) and abs(value) < 1e300 and math.isfinite(value)
        ):
            raise ConfigError(f"{where}.{key} is {_shown(value)}; it must be a number")
        numbers[key] = None if value is None else float(value)
    kept = table.get("kept", False)
    if not isinstance(kept, bool):
        raise ConfigError(f"{where}.kept is {_shown(kept)}; it must be true or false")
    return Entry(
        name,
        _text(table["codec"], f"{where}.codec"),
        _texts(table.get("groups", []), f"{where}.groups", MOST_GROUPS),
        **numbers,
        kept=kept,
    )


def _table(found: Any, what: str, known: tuple[str, ...]) -> Mapping[str, Any]:
    if not isinstance(found, dict):
        raise ConfigError(f"{what} must be an object with {', '.join(known)}")
    for key in found:
        if key not in known:
            raise UnknownNameError(f"key of {what}", key[:80], known)
    return found


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str) or len(value) > _LONGEST:
        raise ConfigError(f"{what} is {_shown(value)}; it must be text of up to {_LONGEST} letters")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{what} is {_shown(value)}: not valid Unicode") from None
    return value


def _texts(value: Any, what: str, most: int) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > most:
        raise ConfigError(f"{what} must be a list of up to {most} codecs")
    return tuple(_text(each, f"{what}[{i}]") for i, each in enumerate(value))


def _shown(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is given twice")
    return found


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not a number of JSON")
