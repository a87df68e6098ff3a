"""The file that a profile is: what was measured on one model's updates, for any later budget."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression import DTYPES, Manifest, TensorSpec, preset
from flowerpress.compression.errors import ConfigError, FlowerpressError, UnknownNameError
from flowerpress.compression.rates.points import Points
from flowerpress.simulations.fields import Fields, parse
from flowerpress.simulations.tuning.parts import Part, parts_named
from flowerpress.simulations.tuning.weights import normalised, slopes

__all__ = ["SENSITIVITIES", "Interaction", "Profile"]

FORMAT = "flowerpress.profile/1"
SENSITIVITIES = ("none", "fisher", "loss")

_MOST_BYTES = 1 << 26
_MOST_TENSORS = 1 << 16
_MOST_SETTINGS = 64
_MOST_TRIALS = 8
_MOST_NOTES = 1000


@dataclass(frozen=True)
class Interaction:
    """Several tensors compressed at once: the loss change, and the sum of those of each alone."""

    tensors: tuple[str, ...]
    together: float
    apart: float


@dataclass(frozen=True, eq=False)
class Profile:
    """What was measured; T parts (floating-point tensors or blocks of their rows), S settings.

    Attributes:
        manifest: the whole model, tensors of integers included.
        points: by part, bytes and squared error of every setting, means over ``clients`` updates.
        menu: what the menu was called.
        fisher: (T,) mean squared gradient of an element; NaN for what is no parameter. Or None.
        loss_changes, loss_errors: (T, K) change of the loss, and the squared error that made it;
            NaN where it was not measured. Or None.
        interactions: how far the changes add up.
        class_weights: weight by class, of those that were given one.
        facts: counts and seconds by name, such as how many examples were used.
        skipped: what the time was too short for, in words.
        config: the configuration that clients were trained with.
    """

    manifest: Manifest
    points: Points
    menu: str
    fisher: NDArray[np.float64] | None = None
    loss_changes: NDArray[np.float64] | None = None
    loss_errors: NDArray[np.float64] | None = None
    interactions: tuple[Interaction, ...] = ()
    class_weights: Mapping[str, float] = field(default_factory=dict)
    facts: Mapping[str, float] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    command: str = ""

    def __post_init__(self) -> None:
        self.parts  # noqa: B018 - refuses names that are not the model's

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """What was measured by itself, in the order of ``points``."""
        return parts_named(self.manifest, self.points.names)

    @property
    def sizes(self) -> dict[str, int]:
        """Elements of each floating-point tensor."""
        return {spec.name: spec.size for spec in self.manifest.specs if spec.is_float}

    @property
    def energies(self) -> dict[str, float]:
        """Squared norm of each floating-point tensor's update."""
        return self._summed(self.points.energies)

    def by_tensor(self, weights: NDArray[np.float64]) -> dict[str, float]:
        """Return weights of parts (T,) as weights of tensors: the mean over blocks, by energy."""
        energies = self.energies
        own = self._summed(weights * self.points.energies)
        plain, counts = self._summed(weights), self._summed(np.ones(len(weights)))
        return {
            name: own[name] / energy if energy > 0 else plain[name] / counts[name]
            for name, energy in energies.items()
        }

    def _summed(self, values: NDArray[np.float64]) -> dict[str, float]:
        total: dict[str, float] = {}
        for part, value in zip(self.parts, values, strict=True):
            total[part.tensor] = total.get(part.tensor, 0.0) + float(value)
        return total

    def measured(self) -> tuple[str, ...]:
        """Return the sensitivities that can be asked for: of ``SENSITIVITIES``, "none" first."""
        have = {"fisher": self.fisher is not None, "loss": self.loss_changes is not None}
        return tuple(name for name in SENSITIVITIES if have.get(name, True))

    def weights(self, sensitivity: str) -> NDArray[np.float64]:
        """Return the weight of each part's squared error, (T,); ones for "none".

        Raises:
            UnknownNameError: no such sensitivity.
            ConfigError: one that was not measured.
        """
        if sensitivity not in SENSITIVITIES:
            raise UnknownNameError("sensitivity", sensitivity, SENSITIVITIES)
        if sensitivity not in self.measured():
            raise ConfigError(
                f"sensitivity {sensitivity!r} was not measured; this profile has "
                f"{', '.join(self.measured())}"
            )
        if sensitivity == "fisher" and self.fisher is not None:
            return normalised(self.fisher, self.points.energies)
        if self.loss_changes is not None and self.loss_errors is not None and sensitivity == "loss":
            return normalised(slopes(self.loss_changes, self.loss_errors), self.points.energies)
        return np.ones(len(self.points.names))

    def to_json(self) -> str:
        """Return the profile as JSON; ``from_json`` reads it back. What is infinite is null."""
        points = self.points
        tensors: list[dict[str, Any]] = [
            {"name": spec.name, "shape": list(spec.shape), "dtype": spec.dtype}
            for spec in self.manifest.specs
        ]
        parts = [
            {
                "name": name,
                "energy": float(points.energies[at]),
                "bytes": _numbers(points.bytes[at]),
                "errors": _numbers(points.errors[at]),
                "fisher": None if self.fisher is None else _number(self.fisher[at]),
                "loss_changes": _row(self.loss_changes, at),
                "loss_errors": _row(self.loss_errors, at),
            }
            for at, name in enumerate(points.names)
        ]
        data = {
            "format": FORMAT,
            "manifest": self.manifest.digest.hex(),
            "menu": self.menu,
            "settings": list(points.settings),
            "tensors": tensors,
            "points": parts,
            "interactions": [
                {"tensors": list(each.tensors), "together": each.together, "apart": each.apart}
                for each in self.interactions
            ],
            "class_weights": dict(self.class_weights),
            "facts": {key: _whole(value) for key, value in self.facts.items()},
            "skipped": list(self.skipped),
            "config": dict(self.config),
            "versions": dict(self.versions),
            "command": self.command,
        }
        return json.dumps(data, allow_nan=False, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, where: str = "profile") -> Profile:
        """Read what ``to_json`` wrote; ``where`` begins every message.

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

    @classmethod
    def read(cls, path: Path) -> Profile:
        """Read a file.

        Raises:
            ConfigError: it cannot be read, is too large, or is no profile.
        """
        try:
            if path.stat().st_size > _MOST_BYTES:
                raise ConfigError(f"{path}: is larger than any profile")
            data = path.read_bytes()
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error
        return cls.from_json(data, str(path))


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
