"""The tables of the tuner: of what was measured, of a plan, of a front.

``*_COLUMNS`` and ``*_cells`` give the same cells to the terminal, where columns are left out if it
is narrow, and to the report.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from flowerpress.compression.rates.plan import RatePlan
from flowerpress.simulations.fitted import Column, FittedTable
from flowerpress.simulations.human import NOTHING, human_bytes, human_ratio, percent
from flowerpress.simulations.tuning.front import FrontPoint
from flowerpress.simulations.tuning.profile import Profile
from flowerpress.simulations.tuning.solving import Predicted, codec_text

__all__ = [
    "PLAN_COLUMNS",
    "PROFILE_COLUMNS",
    "bytes_saved",
    "exhausted_note",
    "front_cells",
    "front_columns",
    "front_note",
    "front_table",
    "plan_cells",
    "plan_note",
    "plan_table",
    "profile_cells",
    "profile_table",
    "significant",
]

PROFILE_COLUMNS = (
    Column("tensor", text=True),
    Column("shape", text=True, drop=1),
    Column("size", drop=3),
    Column("rms", drop=0),
    Column("energy", drop=4),
    Column("bytes at NMSE 0.1", drop=2),
    Column("fisher", drop=5),
    Column("loss", drop=5),
)
"""``energy``: share of the squared norm of the update. ``fisher``, ``loss``: weights of the squared
error, whose mean by energy is 1."""

PLAN_COLUMNS = (
    Column("tensor", text=True),
    Column("size", drop=1),
    Column("codec", text=True, drop=5),
    Column("bytes"),
    Column("share", drop=3),
    Column("error", drop=4),
    Column("sensitivity", drop=2),
)
"""``share``: of the bytes of all tensors. ``error``: NMSE, of this tensor's own energy."""


def profile_cells(profile: Profile) -> list[list[str]]:
    """Return a row for each floating-point tensor, with the cells of ``PROFILE_COLUMNS``."""
    points = profile.points
    total = float(points.energies.sum())
    shapes = [part.spec.shape for part in profile.parts]
    weights = {
        name: profile.weights(name) if name in profile.measured() else None
        for name in ("fisher", "loss")
    }
    rows = []
    for at, name in enumerate(points.names):
        energy, size = float(points.energies[at]), int(points.sizes[at])
        rows.append(
            [
                name,
                "x".join(map(str, shapes[at])) or "scalar",
                f"{size:,}",
                f"{np.sqrt(energy / max(size, 1)):.2e}",
                percent(energy / total) if total else NOTHING,
                human_bytes(_bytes_at(profile, at, 0.1)),
                *[
                    NOTHING if own is None else significant(float(own[at]))
                    for own in weights.values()
                ],
            ]
        )
    return rows


def profile_table(profile: Profile) -> FittedTable:
    """Return the tensors of a profile for the terminal."""
    return FittedTable(PROFILE_COLUMNS, profile_cells(profile))


def plan_cells(
    plan: RatePlan, sizes: Mapping[str, int], expected: Predicted, *, short: bool = False
) -> list[list[str]]:
    """Return a row for each tensor and one for all, with the cells of ``PLAN_COLUMNS``.

    ``sizes``: elements by name; tensors that are not in it (of integers) are left out. ``short``:
    codecs of blocks are only counted.
    """
    entries = [entry for entry in plan.entries if entry.name in sizes]
    total = sum(entry.bytes or 0.0 for entry in entries)
    rows = [
        [
            entry.name,
            f"{sizes[entry.name]:,}",
            codec_text(entry, short=short),
            NOTHING if entry.bytes is None else f"{entry.bytes:,.0f}",
            NOTHING if entry.bytes is None or not total else percent(entry.bytes / total),
            NOTHING if entry.error is None else significant(entry.error),
            NOTHING if entry.sensitivity is None else significant(entry.sensitivity),
        ]
        for entry in entries
    ]
    nmse = NOTHING if expected.nmse is None else significant(expected.nmse)
    whole = [
        "all, with headers",
        f"{sum(sizes.values()):,}",
        "",
        f"{expected.bytes:,.0f}",
        "",
        nmse,
        "",
    ]
    return [*rows, whole]


def plan_table(plan: RatePlan, sizes: Mapping[str, int], expected: Predicted) -> FittedTable:
    """Return a plan for the terminal."""
    return FittedTable(PLAN_COLUMNS, plan_cells(plan, sizes, expected, short=True), last_apart=True)


def front_columns(points: Sequence[FrontPoint]) -> list[Column]:
    """Return the headings for ``front_cells``: the budget, and the error of each allocator."""
    names = list(dict.fromkeys(point.allocator for point in points))
    return [Column("target"), *[Column(name) for name in names]]


def front_cells(points: Sequence[FrontPoint], *, weighted: bool = False) -> list[list[str]]:
    """Return a row for each budget: the NMSE that each allocator gets, or the weighted one."""
    names = list(dict.fromkeys(point.allocator for point in points))
    found = {(point.allocator, point.target_bytes): point for point in points}
    rows = []
    for target in sorted({point.target_bytes for point in points}):
        row = [human_bytes(target)]
        for name in names:
            point = found.get((name, target))
            value = None if point is None else point.weighted if weighted else point.nmse
            row.append(NOTHING if value is None else significant(value))
        rows.append(row)
    return rows


def front_table(points: Sequence[FrontPoint], *, weighted: bool = False) -> FittedTable:
    """Return a front for the terminal."""
    return FittedTable(front_columns(points), front_cells(points, weighted=weighted))


def plan_note(plan: RatePlan, plain: int, expected: Predicted, sensitivity: str) -> str:
    """Return what a plan comes to, in a line; ``plain``: bytes of the uncompressed model."""
    parts = [
        f"A message of about {expected.bytes:,.0f} bytes, "
        f"{human_ratio(plain / max(expected.bytes, 1))} smaller"
    ]
    if plan.target_bytes is not None:
        parts.append(f"never more than {plan.target_bytes:,}: encoders scale the plan to it")
    if expected.nmse is not None:
        parts.append(f"NMSE {significant(expected.nmse)}")
    if sensitivity != "none" and expected.weighted is not None:
        parts.append(f"weighted by {sensitivity} {significant(expected.weighted)}")
    return f"{'; '.join(parts)}. Error: NMSE of the tensor. Allocator: {plan.allocator}."


def exhausted_note(names: Sequence[str]) -> str:
    """Return what to do where the menu has nothing finer for tensors that need it."""
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return (
        f"most of the error left is that of {shown}, which the menu has nothing finer for: "
        "profile with finer settings, such as --menu 'rd(relative=0.1,scope=tensor),...'"
    )


def front_note(points: Sequence[FrontPoint], sensitivity: str) -> str:
    """Return how the allocators compare, in a line: the mean ratio of bytes at equal error."""
    what = "NMSE" if sensitivity == "none" else f"NMSE weighted by {sensitivity}"
    said = f"{what} of each allocator by the bytes of a message."
    saved = {
        name: saving
        for name in dict.fromkeys(point.allocator for point in points)
        if name != "uniform" and (saving := bytes_saved(points, name)) is not None
    }
    if saved:
        listed = ", ".join(f"{name} {percent(value)}" for name, value in saved.items())
        said += f" Fewer bytes than uniform at equal error, on average: {listed}."
    return said


def bytes_saved(points: Sequence[FrontPoint], name: str, than: str = "uniform") -> float | None:
    """Return by which fraction ``name`` takes fewer bytes than another allocator at equal error.

    The geometric mean over the errors of ``than``'s points that lie within those of ``name``;
    None where there are none.
    """
    own = sorted(
        (point.weighted, point.bytes)
        for point in points
        if point.allocator == name and point.weighted > 0
    )
    errors = np.array([error for error, _ in own])
    sizes = np.array([size for _, size in own])
    ratios = [
        float(np.interp(np.log(point.weighted), np.log(errors), np.log(sizes)))
        - float(np.log(point.bytes))
        for point in points
        if point.allocator == than and errors.size > 1 and errors[0] <= point.weighted <= errors[-1]
    ]
    return 1.0 - float(np.exp(np.mean(ratios))) if ratios else None


def significant(value: float) -> str:
    """Return three digits of a number, without an exponent where it is short enough."""
    if value == 0:
        return "0"
    return f"{value:.3g}" if 1e-4 <= abs(value) < 1e4 else f"{value:.1e}"


def _bytes_at(profile: Profile, at: int, nmse: float) -> float | None:
    """Return the fewest bytes of a setting that loses no more of a tensor than ``nmse``."""
    points = profile.points
    good = points.errors[at] <= nmse * points.energies[at]
    sizes = points.bytes[at][good & np.isfinite(points.bytes[at])]
    return float(sizes.min()) if sizes.size else None
