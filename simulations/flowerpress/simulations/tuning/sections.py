"""What stands in a tuning's report: big numbers, tables, commands and configuration."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from flowerpress.simulations import page
from flowerpress.simulations.human import NOTHING, duration, human_bytes, human_ratio
from flowerpress.simulations.tuning.gathered import Tuning
from flowerpress.simulations.tuning.profile import Interaction, Profile
from flowerpress.simulations.tuning.tables import (
    PLAN_COLUMNS,
    PROFILE_COLUMNS,
    front_cells,
    front_columns,
    plan_cells,
    profile_cells,
    significant,
)
from flowerpress.simulations.tuning.verified import VERIFY_COLUMNS, verify_cells

__all__ = ["measured_line", "plan_name", "surroundings", "tables", "tiles"]


def tables(tuning: Tuning) -> list[str]:
    """Return the sections with tables: plan, training, front, tensors, interactions."""
    sections = []
    profile, plan, expected = tuning.profile, tuning.plan, tuning.expected()
    if profile is not None and plan is not None and expected is not None:
        sections.append(
            page.section(
                "Plan",
                page.table(
                    [column.title for column in PLAN_COLUMNS],
                    plan_cells(plan, profile.sizes, expected),
                    text=[0, 2],
                    name=0,
                ),
                page.paragraph(
                    "Bytes and errors are what the profile leads to expect; error is squared error "
                    "by the tensor's energy. With a budget of bytes, an encoder scales all steps "
                    "and densities by one factor so that each update meets it."
                ),
            )
        )
    if tuning.runs:
        sections.append(
            page.section(
                "Training with the plan",
                page.table(
                    [column.title for column in VERIFY_COLUMNS],
                    verify_cells(tuning.runs),
                    text=[0],
                    name=0,
                ),
                page.paragraph(f"{tuning.verified}."),
            )
        )
    if tuning.front:
        weighted = tuning.sensitivity != "none"
        what = f"Errors weighted by {tuning.sensitivity}." if weighted else "Errors unweighted."
        sections.append(
            page.section(
                "Pareto front",
                page.table(
                    [column.title for column in front_columns(tuning.front)],
                    front_cells(tuning.front, weighted=weighted),
                ),
                page.paragraph(f"NMSE that each allocator gets out of a message. {what}"),
            )
        )
    if profile is not None:
        sections.append(
            page.section(
                "Tensors",
                page.table(
                    [column.title for column in PROFILE_COLUMNS],
                    profile_cells(profile),
                    text=[0, 1],
                    name=0,
                ),
                page.paragraph(measured_line(profile)),
            )
        )
        sections.append(_interactions(profile.interactions))
    return sections


def _interactions(found: Sequence[Interaction]) -> str:
    if not found:
        return ""
    rows = [
        (
            ", ".join(each.tensors) if len(each.tensors) < 4 else f"{len(each.tensors)} tensors",
            f"{each.together:+.4f}",
            f"{each.apart:+.4f}",
        )
        for each in found
    ]
    return page.section(
        "Do losses add up?",
        page.table(("Compressed at once", "Loss change", "Sum of each alone"), rows, text=[0]),
        page.paragraph(
            "An allocator adds up what it expects of each tensor alone. Where the two columns are "
            "far apart, tensors make up for each other or make things worse together."
        ),
    )


def surroundings(tuning: Tuning) -> list[str]:
    """Return commands, configuration and versions."""
    commands = [text for text in (tuning.commands or {}).values() if text]
    parts = [page.section("Commands", page.preformatted("\n".join(commands)) if commands else "")]
    if tuning.profile is not None:
        parts += [
            page.section("Configuration", page.definitions(_flat(tuning.profile.config))),
            page.section("Versions", page.definitions(dict(tuning.profile.versions))),
        ]
    return parts


def tiles(tuning: Tuning) -> str:
    """Return the row of big numbers."""
    values: list[tuple[str, str, str]] = []
    profile, expected = tuning.profile, tuning.expected()
    if profile is not None and expected is not None and tuning.plan is not None:
        plain = profile.manifest.nbytes
        target = tuning.plan.target_bytes
        budget = f"budget {target:,} bytes" if target else "no budget of bytes"
        values += [
            (human_bytes(expected.bytes), "message", budget),
            (human_ratio(plain / max(expected.bytes, 1)), "smaller", f"of {human_bytes(plain)}"),
            (
                NOTHING if expected.nmse is None else significant(expected.nmse),
                "NMSE",
                f"weights: {tuning.sensitivity}",
            ),
            (plan_name(tuning), "allocator", f"{len(tuning.plan.menu)} settings to choose from"),
        ]
    if profile is not None:
        points = profile.points
        seconds = profile.facts.get("seconds")
        values += [
            (str(len(profile.sizes)), "tensors", f"{int(points.sizes.sum()):,} elements"),
            (
                str(len(points.settings)),
                "settings measured",
                f"menu {profile.menu}, {duration(seconds)}",
            ),
        ]
    return page.tiles(values)


def measured_line(profile: Profile) -> str:
    """Return how a profile was measured, in words."""
    facts = {name: int(value) for name, value in profile.facts.items() if name != "loss"}
    parts = [
        f"{_many(facts.get('clients', 0), 'training')} of clients in "
        f"{_many(facts.get('rounds', 0), 'round')}",
        f"points: means over {_many(facts.get('updates', 0), 'update')} of the last round",
    ]
    if facts.get("fisher_examples"):
        parts.append(f"fisher: squared gradients of {facts['fisher_examples']:,} examples")
    if facts.get("loss_examples"):
        parts.append(f"loss: on {facts['loss_examples']:,} examples that no client trained on")
    if profile.class_weights:
        said = ", ".join(f"{name} = {each:g}" for name, each in profile.class_weights.items())
        parts.append(f"class weights {said}")
    weights = [name for name in profile.measured() if name != "none"]
    line = f"{'; '.join(parts)}."
    return f"{line} Mean 1 by energy: {', '.join(weights)}." if weights else line


def _flat(config: Mapping[str, Any], before: str = "") -> dict[str, str]:
    """Return nested settings as dotted names and text, e.g. training.lr: 0.1."""
    flat: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{before}{key}.")
        elif value is not None:
            flat[f"{before}{key}"] = value if isinstance(value, str) else json.dumps(value)
    return flat


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def plan_name(tuning: Tuning) -> str:
    """Return what charts call the plan."""
    return (tuning.plan.allocator if tuning.plan else "") or "the plan"
