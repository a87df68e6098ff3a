"""Points and a budget to a plan."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.codec import Context, recipe
from flowerpress.compression.errors import ConfigError, UnknownNameError
from flowerpress.compression.grouped import rows_of
from flowerpress.compression.presets import preset
from flowerpress.compression.presets.ratedistortion import ENVELOPE, RateDistortionBudget
from flowerpress.compression.rates.dynamic_program import ERRORS, dynamic_program, losses
from flowerpress.compression.rates.heuristics import by_size, uniform
from flowerpress.compression.rates.hull import Choice, Weights, factors, total, usable
from flowerpress.compression.rates.lambda_search import lambda_search
from flowerpress.compression.rates.points import Points
from flowerpress.compression.spec import Manifest, TensorSpec

if TYPE_CHECKING:
    from flowerpress.compression.rates.plan import Entry, RatePlan

__all__ = ["ALLOCATORS", "allocate", "solve"]

ALLOCATORS = ("lambda", "dp", "uniform", "by-size")

_EXACT = "none"
_FRAME = 4  # bytes of a tensor beside its body: its length, and which codec is its own
_RECIPE = 2  # and of each codec beside its recipe
_TRIES = 8
_HALVINGS = 24
_BLOCK = re.compile(r"(.*)\[(\d+):(\d+)\]", re.DOTALL)
_NONE: Mapping[str, float] = MappingProxyType({})
_FREE: Mapping[str, str] = MappingProxyType({})


def allocate(
    points: Points,
    allocator: str = "lambda",
    *,
    target_bytes: float | None = None,
    max_nmse: float | None = None,
    weights: Weights = None,
    error: str = "squared",
) -> Choice:
    """Return the setting of each tensor, (T,) indices.

    Args:
        points: what settings cost.
        allocator: one of ``ALLOCATORS``.
        target_bytes: of all bodies together, never exceeded; or
        max_nmse: squared error over energy of all tensors together, never exceeded; with weights,
            each tensor's error and energy count so many times.
        weights: how much the squared error of each tensor counts.
        error: ``squared``, or for ``dp`` also ``norm``: how errors add up while it chooses.

    Raises:
        UnknownNameError: no such allocator or error.
        ConfigError: not exactly one budget, or one that the menu cannot meet; ``norm`` with
            another allocator; a bad weight; a tensor that no setting can code.
    """
    if allocator not in ALLOCATORS:
        raise UnknownNameError("allocator", allocator, ALLOCATORS)
    if error not in ERRORS:
        raise UnknownNameError("error", error, ERRORS)
    if error == "norm" and allocator != "dp":
        raise ConfigError(f"error 'norm' is for the allocator 'dp' only, not for {allocator!r}")
    if (target_bytes is None) == (max_nmse is None):
        raise ConfigError("give exactly one of target_bytes and max_nmse")
    if not points.names:
        return np.zeros(0, np.int64)
    if max_nmse is not None:
        if not 0 <= max_nmse <= 1:
            raise ConfigError(f"max_nmse is {max_nmse}; it must be from 0 to 1")
        most = max_nmse * float((factors(points, weights) * points.energies).sum())
        if error == "norm":
            return _norms_within(points, weights, most)
        match allocator:
            case "lambda":
                return lambda_search(points, weights, max_error=most)
            case "dp":
                return dynamic_program(points, weights, max_error=most, error=error)
            case "uniform":
                return uniform(points, weights, max_error=most)
        return by_size(points, weights, max_error=most)
    match allocator:
        case "lambda":
            return lambda_search(points, weights, target_bytes=target_bytes)
        case "dp":
            return dynamic_program(points, weights, target_bytes=target_bytes, error=error)
        case "uniform":
            return uniform(points, weights, target_bytes=target_bytes)
    return by_size(points, weights, target_bytes=target_bytes)


def solve(
    manifest: Manifest,
    points: Points,
    *,
    allocator: str = "lambda",
    target_bytes: int | None = None,
    max_nmse: float | None = None,
    weights: Mapping[str, float] = _NONE,
    error: str = "squared",
    fixed: Mapping[str, str] = _FREE,
) -> RatePlan:
    """Return a plan within a budget.

    What a message takes beside the bodies that are chosen is counted as well as it can be known
    without the data; the encoder makes up for the rest where a plan has steps or densities that it
    can scale. Where even the cheapest choice is too large and can be scaled, that is the plan.

    Args:
        manifest: the model.
        points: what settings cost on its floating-point tensors, or on blocks of their rows, which
            become groups.
        allocator: one of ``ALLOCATORS``.
        target_bytes: of a client's whole message; or
        max_nmse: of the tensors that are not ``fixed``, together.
        weights: by name, how much the squared error of a tensor counts; 1 if missing.
        error: as in ``allocate``.
        fixed: by name, codec texts of tensors that do not choose.

    Raises:
        UnknownNameError: no such allocator, error or codec.
        ConfigError: not exactly one budget, or one that cannot be met; a tensor that is neither
            measured nor fixed; a bad weight.
    """
    # Presets may name plans, and plans this module.
    from flowerpress.compression.rates.plan import RatePlan

    open_ = _measured(manifest, points, fixed)
    own = points.of([name for names in open_.values() for name in names])
    usable(own)
    beside = ENVELOPE + sum(
        _FRAME + _guess(spec, fixed.get(spec.name, _EXACT), points)
        for spec in manifest.specs
        if spec.name not in open_ and target_bytes is not None
    )
    if target_bytes is None:
        choice = allocate(own, allocator, max_nmse=max_nmse, weights=weights, error=error)
    elif max_nmse is not None:
        raise ConfigError("give exactly one of target_bytes and max_nmse")
    else:
        choice = _within(own, allocator, target_bytes - beside, weights, error)
    entries = []
    at = 0
    for spec in manifest.specs:
        names = open_.get(spec.name)
        if names is None:
            given = _given(spec, fixed.get(spec.name, _EXACT), points)
            entries.append(replace(given, kept=spec.name in fixed))
            continue
        rows = np.arange(at, at + len(names), dtype=np.int64)
        at += len(names)
        entry = _chosen(spec, own, rows, choice)
        known = weights.get(spec.name, 1.0) if weights else None
        entries.append(replace(entry, sensitivity=known))
    return RatePlan(tuple(entries), manifest.digest.hex(), target_bytes, points.settings, allocator)


def _within(points: Points, allocator: str, target: float, weights: Weights, error: str) -> Choice:
    """Return a choice whose bodies, frames and recipes take at most ``target`` bytes."""
    budget = target - _FRAME * len(points.names)
    cheapest: Choice = points.bytes.argmin(axis=1)
    least = total(points.bytes, cheapest) if points.names else 0.0
    for _ in range(_TRIES):
        if budget < least:
            break
        choice = allocate(points, allocator, target_bytes=budget, weights=weights, error=error)
        taken = total(points.bytes, choice) + _FRAME * len(choice) + _recipes(points, choice)
        if taken <= target:
            return choice
        budget = min(budget, total(points.bytes, choice)) - (taken - target)
    if not any(_scales(points.settings[column]) for column in set(cheapest.tolist())):
        most = least + _FRAME * len(points.names) + _recipes(points, cheapest)
        raise ConfigError(
            f"{target:.0f} bytes are left for {len(points.names)} tensors, and the menu takes at "
            f"least {most:.0f}; raise target_bytes, or choose another menu"
        )
    return cheapest


def _norms_within(points: Points, weights: Weights, most: float) -> Choice:
    """Return L-GreCo's choice of fewest bytes whose *squared* errors are within ``most``."""
    squared = losses(points, weights, "squared")
    norms = losses(points, weights, "norm")
    usable(points)
    found: Choice = norms.argmin(axis=1)
    low, high = total(norms, found), total(norms, points.bytes.argmin(axis=1))
    if total(squared, found) > most:
        raise ConfigError(
            f"an error of {most:.3g}: the menu has at least {total(squared, found):.3g}; "
            "allow more, or choose another menu"
        )
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        choice = dynamic_program(points, weights, max_error=middle, error="norm")
        if total(squared, choice) <= most:
            low = middle
            if total(points.bytes, choice) <= total(points.bytes, found):
                found = choice
        else:
            high = middle
    return found


def _measured(manifest: Manifest, points: Points, fixed: Mapping[str, str]) -> dict[str, list[str]]:
    """Return, for each tensor that chooses, its names among the points: its own or its blocks'."""
    names = {spec.name for spec in manifest.specs}
    if unknown := sorted(fixed.keys() - names):
        raise UnknownNameError("tensor with a codec of its own", unknown[0], names)
    blocks: dict[str, list[str]] = {}
    for name in points.names:
        if name not in names and (found := _BLOCK.fullmatch(name)):
            blocks.setdefault(found[1], []).append(name)
    own = set(points.names)
    out = {}
    for spec in manifest.specs:
        if spec.name in fixed or not spec.is_float:
            continue
        if spec.name in own:
            out[spec.name] = [spec.name]
        elif spec.name in blocks:
            parts = blocks[spec.name]
            cut = [f"{spec.name}[{a}:{b}]" for a, b in rows_of(spec, len(parts))]
            if cut != parts:
                raise ConfigError(f"points: the blocks of {spec.name!r} are not equal, or not all")
            out[spec.name] = parts
        elif spec.size:
            raise ConfigError(f"points: nothing was measured for {spec.name!r}")
    return out


def _chosen(spec: TensorSpec, points: Points, rows: NDArray[np.int64], choice: Choice) -> Entry:
    from flowerpress.compression.rates.plan import Entry

    texts = tuple(points.settings[choice[row]] for row in rows)
    energy = float(points.energies[rows].sum())
    lost = float(points.errors[rows, choice[rows]].sum())
    return Entry(
        spec.name,
        texts[0],
        groups=texts if len(rows) > 1 else (),
        bytes=float(points.bytes[rows, choice[rows]].sum()),
        error=lost / energy if energy else 0.0,
    )


def _given(spec: TensorSpec, text: str, points: Points) -> Entry:
    from flowerpress.compression.rates.plan import Entry

    if not spec.is_float or text == _EXACT:
        return Entry(spec.name, text, bytes=float(spec.nbytes), error=0.0)
    if spec.name in points.names and text in points.settings:
        row, column = points.names.index(spec.name), points.settings.index(text)
        energy = points.energies[row]
        error = points.errors[row, column] / energy if energy else 0.0
        if np.isfinite(error):
            return Entry(spec.name, text, bytes=float(points.bytes[row, column]), error=error)
    return Entry(spec.name, text)


def _guess(spec: TensorSpec, text: str, points: Points) -> float:
    """Return about how many bytes a tensor takes that does not choose."""
    known = _given(spec, text, points).bytes
    return _of_noise(spec, text) if known is None else known


@functools.lru_cache(maxsize=1024)
def _of_noise(spec: TensorSpec, text: str) -> float:
    rng = np.random.default_rng(0)
    noise = np.asarray(rng.standard_normal(spec.shape, np.float32))
    plan = preset(text).plan(Manifest((spec,)))
    return float(len(plan.encode(Manifest((spec,)), [noise], [Context(rng)])[0].body))


def _recipes(points: Points, choice: Choice) -> float:
    """Return the bytes that name the codecs of a choice."""
    shared: set[str] = set()
    taken = 0
    for name, column in zip(points.names, choice.tolist(), strict=True):
        text = points.settings[column]
        # A tensor in blocks names the codecs of all of them itself.
        if _own_recipes(text) or _BLOCK.fullmatch(name):
            taken += _RECIPE + _longest_recipe(text)
        else:
            shared.add(text)
    return taken + sum(_RECIPE + _longest_recipe(text) for text in shared)


@functools.lru_cache(maxsize=1024)
def _longest_recipe(text: str) -> int:
    choice = preset(text)
    return max(
        len(recipe(choice.codec(TensorSpec("probe", shape)))) for shape in ((512,), (512, 512))
    )


@functools.lru_cache(maxsize=1024)
def _own_recipes(text: str) -> bool:
    """Whether each tensor gets a step of its own, and with it a recipe."""
    choice = preset(text)
    return isinstance(choice, RateDistortionBudget) and choice.scope == "tensor"


def _scales(text: str) -> bool:
    from flowerpress.compression.rates.dial import is_dialled

    return is_dialled(preset(text))
