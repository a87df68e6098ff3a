"""A profile as JSON: how it is written, and read strictly, as anybody may have made the file."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression import DTYPES, Manifest, TensorSpec, preset
from flowerpress.compression.errors import ConfigError, FlowerpressError
from flowerpress.compression.rates.points import Points
from flowerpress.simulations.fields import Fields, parse
from flowerpress.simulations.tuning.parts import parts_named
from flowerpress.simulations.tuning.profile import Interaction, Profile

__all__ = ["FORMAT", "dumps", "loads"]

FORMAT = "flowerpress.profile/1"

_MOST_TENSORS = 1 << 16
_MOST_SETTINGS = 64
_MOST_TRIALS = 8
_MOST_NOTES = 1000


def dumps(profile: Profile) -> str:
    """Return a profile as JSON. What is infinite, or no number, is null."""
    points = profile.points
    tensors: list[dict[str, Any]] = [
        {"name": spec.name, "shape": list(spec.shape), "dtype": spec.dtype}
        for spec in profile.manifest.specs
    ]
    parts = [
        {
            "name": name,
            "energy": float(points.energies[at]),
            "bytes": _numbers(points.bytes[at]),
            "errors": _numbers(points.errors[at]),
            "fisher": None if profile.fisher is None else _number(profile.fisher[at]),
            "loss_changes": _row(profile.loss_changes, at),
            "loss_errors": _row(profile.loss_errors, at),
        }
        for at, name in enumerate(points.names)
    ]
    data = {
        "format": FORMAT,
        "manifest": profile.manifest.digest.hex(),
        "menu": profile.menu,
        "settings": list(points.settings),
        "tensors": tensors,
        "points": parts,
        "interactions": [
            {"tensors": list(each.tensors), "together": each.together, "apart": each.apart}
            for each in profile.interactions
        ],
        "class_weights": dict(profile.class_weights),
        "facts": {key: _whole(value) for key, value in profile.facts.items()},
        "skipped": list(profile.skipped),
        "config": dict(profile.config),
        "versions": dict(profile.versions),
        "command": profile.command,
    }
    return json.dumps(data, allow_nan=False, indent=1) + "\n"


def loads(text: str | bytes, where: str) -> Profile:
    """Read what ``dumps`` wrote; ``where`` begins every message.

    Raises:
        ConfigError: not a profile, or one that says what cannot be.
    """
    fields = Fields(parse(text, where), where)
    if fields.text("format") != FORMAT:
        raise ConfigError(f"{where}: is not a {FORMAT} file; tune profile makes one")
    try:
        profile = _read(fields, where)
    except ConfigError as error:
        if str(error).startswith(where):
            raise
        raise ConfigError(f"{where}: {error}") from error
    fields.done()
    return profile


def _read(fields: Fields, where: str) -> Profile:
    settings = _texts(fields, "settings", _MOST_SETTINGS)
    for setting in settings:
        _check_setting(setting, where)
    entries = fields.items("tensors")
    if not 1 <= len(entries) <= _MOST_TENSORS:
        raise ConfigError(f"{where}: 'tensors' has {len(entries)} of them; 1 to {_MOST_TENSORS:,}")
    specs = []
    for number, entry in enumerate(entries):
        own = Fields(entry, f"{where}: tensors[{number}]")
        specs.append(TensorSpec(own.text("name"), _shape(own), _dtype(own)))
        own.done()
    manifest = Manifest(tuple(specs))
    if fields.text("manifest") != manifest.digest.hex():
        raise ConfigError(f"{where}: 'manifest' is not that of the tensors below it")
    entries = _capped(fields, "points", _MOST_TENSORS)
    if not entries:
        raise ConfigError(f"{where}: has no floating-point tensor")
    rows: list[_Row] = []
    for number, entry in enumerate(entries):
        own = Fields(entry, f"{where}: points[{number}]")
        rows.append(_Row.of(own, len(settings)))
        own.done()
    parts = parts_named(manifest, [row.name for row in rows])
    points = Points(
        tuple(part.name for part in parts),
        settings,
        np.array([row.bytes for row in rows]).reshape(len(rows), -1),
        np.array([row.errors for row in rows]).reshape(len(rows), -1),
        np.array([row.energy for row in rows]),
        np.array([part.spec.size for part in parts], np.int64),
    )
    interactions = []
    for number, entry in enumerate(_capped(fields, "interactions", _MOST_NOTES)):
        own = Fields(entry, f"{where}: interactions[{number}]")
        names = _texts(own, "tensors", len(parts))
        if unknown := set(names) - set(points.names):
            raise ConfigError(f"{own.where}: no tensor is called {sorted(unknown)[0]!r}")
        interactions.append(Interaction(names, own.number("together"), own.number("apart")))
        own.done()
    return Profile(
        manifest=manifest,
        points=points,
        menu=fields.text("menu"),
        fisher=_column([row.fisher for row in rows], where, "fisher"),
        loss_changes=_table([row.loss_changes for row in rows], where, "loss_changes"),
        loss_errors=_table([row.loss_errors for row in rows], where, "loss_errors"),
        interactions=tuple(interactions),
        class_weights=_named_numbers(fields, "class_weights"),
        facts=_named_numbers(fields, "facts"),
        skipped=_texts(fields, "skipped", _MOST_NOTES),
        config=fields.mapping("config"),
        versions=_named_texts(fields, "versions"),
        command=fields.text("command"),
    )


@dataclass(frozen=True)
class _Row:
    """What the file says of one part."""

    name: str
    energy: float
    bytes: list[float]
    errors: list[float]
    fisher: float | None
    loss_changes: list[float] | None
    loss_errors: list[float] | None

    @classmethod
    def of(cls, fields: Fields, settings: int) -> _Row:
        fisher = fields.maybe_number("fisher")
        if fisher is not None and fisher < 0:
            raise ConfigError(f"{fields.where}: 'fisher' is {fisher}; it must be at least 0")
        changes, errors = (_trials(fields, key) for key in ("loss_changes", "loss_errors"))
        if (changes is None) != (errors is None) or len(changes or []) != len(errors or []):
            raise ConfigError(f"{fields.where}: 'loss_changes' and 'loss_errors' do not match")
        return cls(
            fields.text("name"),
            fields.number("energy"),
            _costs(fields, "bytes", settings),
            _costs(fields, "errors", settings),
            fisher,
            changes,
            errors,
        )


def _costs(fields: Fields, key: str, settings: int) -> list[float]:
    values = fields.maybe_numbers(key)
    if values is None or len(values) != settings:
        raise ConfigError(
            f"{fields.where}: {key!r} must have a value for each of {settings} settings"
        )
    return [math.inf if value is None else value for value in values]


def _trials(fields: Fields, key: str) -> list[float] | None:
    values = fields.maybe_numbers(key)
    if values is not None and len(values) > _MOST_TRIALS:
        raise ConfigError(f"{fields.where}: {key!r} has more than {_MOST_TRIALS} values")
    return None if values is None else [math.nan if each is None else each for each in values]


def _shape(fields: Fields) -> tuple[int, ...]:
    extents = fields.items("shape")
    if len(extents) > 32 or any(type(each) is not int or not 0 <= each < 2**40 for each in extents):
        raise ConfigError(f"{fields.where}: 'shape' must be a list of at most 32 sizes")
    if math.prod(extents) >= 2**48:
        raise ConfigError(f"{fields.where}: 'shape' has too many elements")
    return tuple(extents)


def _dtype(fields: Fields) -> str:
    dtype = fields.text("dtype")
    if dtype not in DTYPES:
        raise ConfigError(f"{fields.where}: 'dtype' is {dtype!r}; known: {', '.join(DTYPES)}")
    return dtype


def _check_setting(setting: str, where: str) -> None:
    try:
        preset(setting)
    except FlowerpressError as error:
        raise ConfigError(f"{where}: 'settings': {error}") from error


def _capped(fields: Fields, key: str, most: int) -> list[Any]:
    items = fields.items(key)
    if len(items) > most:
        raise ConfigError(f"{fields.where}: {key!r} has {len(items)} entries; at most {most}")
    return items


def _texts(fields: Fields, key: str, most: int) -> tuple[str, ...]:
    items = _capped(fields, key, most)
    if not all(isinstance(item, str) for item in items):
        raise ConfigError(f"{fields.where}: {key!r} must be a list of strings")
    return tuple(items)


def _named_texts(fields: Fields, key: str) -> dict[str, str]:
    inner = Fields(fields.mapping(key), f"{fields.where}: {key}")
    return {name: inner.text(name) for name in fields.mapping(key)}


def _named_numbers(fields: Fields, key: str) -> dict[str, float]:
    inner = Fields(fields.mapping(key), f"{fields.where}: {key}")
    return {name: inner.number(name) for name in fields.mapping(key)}


def _column(values: list[float | None], where: str, key: str) -> NDArray[np.float64] | None:
    """Return a column; None where nothing at all was measured."""
    if all(value is None for value in values):
        return None
    return np.array([math.nan if value is None else value for value in values])


def _table(values: list[list[float] | None], where: str, key: str) -> NDArray[np.float64] | None:
    lengths = {None if row is None else len(row) for row in values}
    if len(lengths) != 1:
        raise ConfigError(f"{where}: {key!r} must have as many values for every tensor")
    (length,) = lengths
    if not length:
        return None
    return np.array(values, np.float64)


def _row(table: NDArray[np.float64] | None, at: int) -> list[float | None] | None:
    return None if table is None else _numbers(table[at])


def _numbers(values: NDArray[np.float64]) -> list[float | None]:
    return [_number(value) for value in values]


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _whole(value: float) -> float:
    """Return counts as integers, so that the file reads 8 and not 8.0."""
    return int(value) if float(value).is_integer() else float(value)
