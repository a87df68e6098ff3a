"""From a profile and a budget to a plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from flowerpress.compression import Manifest, TensorSpec, encode_frames, preset, recipe
from flowerpress.compression.errors import ConfigError
from flowerpress.compression.rates.budget import BudgetSpec, least_bytes
from flowerpress.compression.rates.patterns import matching, unmatched
from flowerpress.compression.rates.plan import Entry, RatePlan
from flowerpress.compression.rates.solve import solve
from flowerpress.simulations.tuning.profile import Profile
from flowerpress.simulations.tuning.quantities import bits_per_second, byte_count

__all__ = [
    "Predicted",
    "exhausted",
    "fixed_codecs",
    "predicted",
    "read_budget",
    "solve_profile",
    "target_bytes",
]


def read_budget(
    *,
    target_bytes: str | None = None,
    target_ratio: float | None = None,
    max_nmse: float | None = None,
    bandwidth: str | None = None,
    deadline: float | None = None,
    allocator: str = "lambda",
) -> BudgetSpec:
    """Return the budget that a person asked for; sizes and rates as people write them.

    Raises:
        UnknownNameError: no such allocator.
        ConfigError: none or several of the budgets, half of a deadline, or a value out of range.
    """
    kinds = {
        "--target-bytes": target_bytes,
        "--target-ratio": target_ratio,
        "--max-nmse": max_nmse,
        "--bandwidth with --deadline": bandwidth or deadline,
    }
    given = [name for name, value in kinds.items() if value is not None]
    if len(given) != 1:
        said = f"{' and '.join(given)} say different things" if given else "there is no budget"
        raise ConfigError(f"{said}; give exactly one of {', '.join(kinds)}")
    if (bandwidth is None) != (deadline is None):
        raise ConfigError(
            "--bandwidth (bits a second) and --deadline (seconds) need each other; "
            f"{'--deadline' if deadline is None else '--bandwidth'} is missing"
        )
    return BudgetSpec(
        target_bytes=None if target_bytes is None else byte_count(target_bytes, "--target-bytes"),
        target_ratio=target_ratio,
        max_nmse=max_nmse,
        deadline=deadline,
        rate=None if bandwidth is None else bits_per_second(bandwidth, "--bandwidth"),
        allocator=allocator,
    )


def fixed_codecs(names: Sequence[str], words: Sequence[str]) -> dict[str, str]:
    """Return the codec of each tensor that a word ``PATTERN=CODEC`` names; the first word wins.

    Raises:
        UnknownNameError: no such codec.
        ConfigError: not of that form, or a pattern that matches no tensor.
    """
    fixed: dict[str, str] = {}
    for word in words:
        pattern, equals, codec = (part.strip() for part in word.partition("="))
        if not equals or not pattern or not codec:
            raise ConfigError(f"--fix {word!r} is not PATTERN=CODEC, such as '*.bias=fp16'")
        preset(codec)
        found = matching(pattern, names)
        if not found:
            raise unmatched("--fix", pattern, names)
        fixed = dict.fromkeys(found, codec) | fixed
    return fixed


def solve_profile(
    profile: Profile,
    budget: BudgetSpec,
    *,
    sensitivity: str = "none",
    fix: Sequence[str] = (),
) -> RatePlan:
    """Return the plan with the least (weighted) error in the budget, or the fewest bytes.

    Args:
        profile: what was measured.
        budget: bytes or error, and the allocator.
        sensitivity: whose weights squared errors get, of ``profile.measured()``.
        fix: words such as ``"*.bias=fp16"``: tensors that keep a codec whatever the budget.

    Raises:
        UnknownNameError: a name that does not exist.
        ConfigError: a budget that nothing fits, or a sensitivity that was not measured.
    """
    weights = profile.weights(sensitivity)
    named = profile.by_tensor(weights) | dict(
        zip(profile.points.names, map(float, weights), strict=True)
    )
    target = target_bytes(profile, budget)
    if target is not None:
        BudgetSpec(target_bytes=target).check(profile.manifest)
    plan = solve(
        profile.manifest,
        profile.points,
        allocator=budget.allocator,
        target_bytes=target,
        max_nmse=budget.max_nmse,
        weights=named,
        fixed=fixed_codecs(list(profile.sizes), fix),
    )
    specs = {spec.name: spec for spec in profile.manifest.specs}
    entries = (
        replace(entry, bytes=_of_noise(specs[entry.name], entry.codec))
        if entry.bytes is None and not entry.groups
        else entry
        for entry in plan.entries
    )
    return replace(plan, entries=tuple(entries))


def target_bytes(profile: Profile, budget: BudgetSpec) -> int | None:
    """Return the bytes of a whole message; None where the budget is one of error.

    Of a deadline no more than the finest settings of the menu take: whoever has time to spare need
    not fill it.
    """
    if budget.deadline is None:
        return budget.target(profile.manifest)
    sizes = profile.points.bytes
    finest = np.where(np.isfinite(sizes), sizes, 0.0).max(axis=1).sum()
    recipes = 32 * len(profile.points.names)
    most = least_bytes(profile.manifest) + recipes + int(finest)
    return min(int(budget.deadline * (budget.rate or 0.0) / 8), most)


@dataclass(frozen=True)
class Predicted:
    """What a plan is expected to take and to lose: means over the updates of the profile.

    ``bytes`` is a whole message. Errors are fractions of the energy of the tensors that were
    measured with their setting; None where there are none. ``unknown``: tensors of which the
    profile does not know what their codec loses.
    """

    bytes: float
    nmse: float | None
    weighted: float | None
    unknown: tuple[str, ...]


def predicted(profile: Profile, plan: RatePlan, sensitivity: str = "none") -> Predicted:
    """Add up what the entries of ``plan`` say.

    Raises:
        ConfigError: a sensitivity that was not measured.
    """
    energies, weights = profile.energies, profile.by_tensor(profile.weights(sensitivity))
    entries = [entry for entry in plan.entries if entry.name in energies]
    bodies = sum(entry.bytes or 0.0 for entry in entries)
    known = [entry for entry in entries if entry.bytes is not None and entry.error is not None]
    error = sum((entry.error or 0.0) * energies[entry.name] for entry in known)
    weighted = sum(
        weights[entry.name] * (entry.error or 0.0) * energies[entry.name] for entry in known
    )
    energy = sum(energies[entry.name] for entry in known)
    weighted_energy = sum(weights[entry.name] * energies[entry.name] for entry in known)
    beside = least_bytes(profile.manifest) + _recipe_bytes(profile, plan)
    return Predicted(
        bytes=beside + bodies,
        nmse=error / energy if energy else None,
        weighted=weighted / weighted_energy if weighted_energy else None,
        unknown=tuple(entry.name for entry in entries if entry not in known),
    )


def exhausted(profile: Profile, plan: RatePlan) -> list[str]:
    """Return the tensors that would get a finer setting if the menu had one, worst first.

    Empty unless they make up most of the error that the plan leaves: then the menu decides about
    it, and no longer the budget.
    """
    points = profile.points
    finest = {
        name: points.settings[int(points.errors[at].argmin())]
        for at, name in enumerate(points.names)
    }
    energies = profile.energies
    left = {
        entry.name: (entry.error or 0.0) * energies[entry.name]
        for entry in plan.entries
        if entry.name in energies
    }
    out = {entry.name for entry in plan.entries if entry.codec == finest.get(entry.name)}
    lost = sum(left[name] for name in out)
    if plan.target_bytes is None or lost <= 0.5 * sum(left.values()):
        return []
    return sorted((name for name in out if left[name] > 0), key=lambda name: -left[name])


def _of_noise(spec: TensorSpec, text: str) -> float:
    """Return what a codec takes of noise: exact for formats, much for what exploits structure."""
    noise = np.random.default_rng(0).standard_normal(spec.shape, np.float32)
    plan = preset(text).plan(Manifest((spec,)))
    frames, _ = encode_frames(
        Manifest((spec,)), plan, {spec.name: spec.cast(np.asarray(noise))}, np.random.default_rng(0)
    )
    return float(sum(len(frame.body) for frame in frames))


def _recipe_bytes(profile: Profile, plan: RatePlan) -> int:
    """Return about what naming the codecs takes; tensors with steps of their own name them each."""
    specs = {spec.name: spec for spec in profile.manifest.specs}
    named: dict[str, bytes] = {}
    for entry in plan.entries:
        for text in entry.groups or (entry.codec,):
            own = entry.name if "scope=tensor" in text else ""
            named[f"{own} {text}"] = recipe(preset(text).codec(specs[entry.name]))
    return sum(len(each) + 2 for each in named.values())


def codec_text(entry: Entry, *, short: bool = False) -> str:
    """Return an entry's codec as people read it; ``short``: of blocks only how many there are."""
    if not entry.groups:
        return entry.codec
    if len(set(entry.groups)) == 1:
        return f"{len(entry.groups)} x {entry.groups[0]}"
    return f"{len(entry.groups)} blocks of rows" if short else " | ".join(entry.groups)
