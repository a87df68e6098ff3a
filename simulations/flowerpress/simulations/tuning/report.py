"""``report.html`` of a tuning, and its pictures as PNG: all that is known by then, on one page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from flowerpress.compression.errors import ConfigError
from flowerpress.compression.rates.plan import RatePlan
from flowerpress.simulations import page
from flowerpress.simulations.canvas import drawing, save_png, svg
from flowerpress.simulations.chart import comparison_figure
from flowerpress.simulations.comparison import runs_in
from flowerpress.simulations.record import Run
from flowerpress.simulations.tables import (
    NOTHING,
    comparison_cells,
    comparison_columns,
    duration,
    human_bytes,
    human_ratio,
    summarise,
)
from flowerpress.simulations.tuning.folder import TuningFolder, write_text
from flowerpress.simulations.tuning.front import FrontPoint, front, read_csv
from flowerpress.simulations.tuning.pictures import curves_figure, front_figure, tensors_figure
from flowerpress.simulations.tuning.profile import Interaction, Profile
from flowerpress.simulations.tuning.solving import Predicted, predicted
from flowerpress.simulations.tuning.tables import (
    PLAN_COLUMNS,
    PROFILE_COLUMNS,
    front_cells,
    front_columns,
    plan_cells,
    profile_cells,
    significant,
)

__all__ = ["Tuning", "gathered", "write_report"]

REPORT = "report.html"


@dataclass(frozen=True)
class Tuning:
    """What a report shows; None and empty for what was not done yet.

    ``sensitivity``: whose weights the plan was solved with. ``verified``: the runs' common budget,
    in words. ``notes``: files that could not be read.
    """

    profile: Profile | None = None
    plan: RatePlan | None = None
    front: Sequence[FrontPoint] = ()
    runs: Sequence[Run] = ()
    sensitivity: str = "none"
    verified: str = ""
    commands: Mapping[str, str] | None = None
    notes: tuple[str, ...] = ()

    def expected(self) -> Predicted | None:
        """Return what the plan is expected to take and lose; None without profile or plan."""
        if self.profile is None or self.plan is None:
            return None
        return predicted(self.profile, self.plan, self.sensitivity)


def gathered(folder: TuningFolder) -> Tuning:
    """Read all parts of a folder; one that cannot be read becomes a note.

    A plan and a front are only shown beside the profile of the same model.
    """
    notes: list[str] = []

    def part(name: str, read: Any) -> Any:
        path = folder.path(name)
        if path is None:
            return None
        try:
            return read(path)
        except ConfigError as error:
            notes.append(str(error))
            return None

    profile: Profile | None = part("profile", Profile.read)
    plan: RatePlan | None = part("plan", RatePlan.read)
    if profile and plan and plan.manifest != profile.manifest.digest.hex():
        notes.append("the plan is for another model than the profile, and is left out here")
        plan = None
    of_curve = folder.settings.get("curve", "none")
    sensitivity = of_curve if plan is None else folder.settings.get("sensitivity", "none")
    if profile is None or sensitivity not in profile.measured():
        sensitivity = "none"
    points: list[FrontPoint] = part("curve", read_csv) or []
    # A plan belongs on the front of its own weights.
    if profile is not None and plan is not None and (not points or sensitivity != of_curve):
        points = front(profile, sensitivity=sensitivity)
    return Tuning(
        profile=profile,
        plan=plan,
        front=points,
        runs=part("verify", runs_in) or [],
        sensitivity=sensitivity,
        verified=folder.settings.get("verified", ""),
        commands=folder.commands,
        notes=tuple(notes),
    )


def write_report(folder: TuningFolder) -> Path:
    """Write the page and the pictures of a folder; return the page.

    Raises:
        ConfigError: they cannot be written.
    """
    tuning = gathered(folder)
    body = [
        _tiles(tuning),
        *[page.paragraph(note, "warn") for note in _warnings(tuning)],
        *_pictures(folder.folder, tuning),
        *_tables(tuning),
        *_surroundings(tuning),
    ]
    path = folder.folder / REPORT
    write_text(path, page.page(_title(tuning), _lead(tuning), body))
    return path


def _pictures(folder: Path, tuning: Tuning) -> list[str]:
    weighted = tuning.sensitivity != "none"
    with drawing():
        made: list[tuple[str, str, Figure | None]] = []
        if tuning.front:
            figure = front_figure(
                tuning.front, chosen=tuning.expected(), label=_plan_name(tuning), weighted=weighted
            )
            made.append(("front", "What every budget gives, by allocator", figure))
        if tuning.profile is not None:
            figure = tensors_figure(tuning.profile, tuning.plan)
            made.append(("tensors", "Bytes and sensitivity per tensor", figure))
            figure = curves_figure(tuning.profile, tuning.plan)
            made.append(("curves", "Error against bytes, tensor by tensor", figure))
        if tuning.runs:
            figure = comparison_figure(tuning.runs, "Training with the plan", tuning.verified)
            made.append(("verify", "Accuracy against total bytes", figure))
        markup = []
        for name, caption, figure in made:
            if figure is not None:
                try:
                    folder.mkdir(parents=True, exist_ok=True)
                    save_png(figure, folder / f"{name}.png")
                except OSError as error:
                    raise ConfigError(f"{folder}: cannot write there: {error}") from error
                markup.append(page.figure(svg(figure, name), caption))
        return markup


def _tables(tuning: Tuning) -> list[str]:
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
        rows = summarise(tuning.runs)
        sections.append(
            page.section(
                "Training with the plan",
                page.table(
                    comparison_columns(rows), [comparison_cells(r) for r in rows], text=[0], name=0
                ),
                page.paragraph(
                    f"{tuning.verified}. Downlink: none, so that only the uplink differs."
                ),
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


def _surroundings(tuning: Tuning) -> list[str]:
    commands = [text for text in (tuning.commands or {}).values() if text]
    parts = [page.section("Commands", page.preformatted("\n".join(commands)) if commands else "")]
    if tuning.profile is not None:
        parts += [
            page.section("Configuration", page.definitions(_flat(tuning.profile.config))),
            page.section("Versions", page.definitions(dict(tuning.profile.versions))),
        ]
    return parts


def _warnings(tuning: Tuning) -> list[str]:
    notes = list(tuning.notes)
    if tuning.profile is not None and tuning.profile.skipped:
        notes.append(f"The profile was cut short. {'; '.join(tuning.profile.skipped)}.")
    expected = tuning.expected()
    if expected is not None and expected.unknown:
        names = ", ".join(expected.unknown[:5])
        notes.append(f"Of {names} the profile does not know what the plan's codec loses.")
    return notes


def _tiles(tuning: Tuning) -> str:
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
            (_plan_name(tuning), "allocator", f"{len(tuning.plan.menu)} settings to choose from"),
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
    return "; ".join(parts) + ". The weights fisher and loss have the mean 1 by energy."


def _title(tuning: Tuning) -> str:
    task = str(tuning.profile.config.get("task", "")) if tuning.profile else ""
    return f"{task}: rates per tensor" if task else "Rates per tensor"


def _lead(tuning: Tuning) -> str:
    if tuning.profile is None:
        return "there is no profile in this folder"
    config = tuning.profile.config
    parts = [f"{config.get('clients')} clients", str(config.get("partition") or "")]
    parts.append(f"seed {config.get('seed')}")
    return ", ".join(part for part in parts if part)


def _plan_name(tuning: Tuning) -> str:
    return (tuning.plan.allocator if tuning.plan else "") or "the plan"


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
