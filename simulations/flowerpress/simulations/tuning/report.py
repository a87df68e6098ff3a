"""``report.html`` of a tuning, and its pictures as PNG: all that is known by then, on one page."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from flowerpress.compression.errors import ConfigError
from flowerpress.simulations import page
from flowerpress.simulations.canvas import drawing, save_png, svg
from flowerpress.simulations.chart import comparison_figure
from flowerpress.simulations.tuning.folder import TuningFolder, write_text
from flowerpress.simulations.tuning.gathered import Tuning, gathered
from flowerpress.simulations.tuning.pictures import curves_figure, front_figure, tensors_figure
from flowerpress.simulations.tuning.sections import plan_name, surroundings, tables, tiles
from flowerpress.simulations.tuning.solving import exhausted
from flowerpress.simulations.tuning.tables import exhausted_note

__all__ = ["write_report"]

REPORT = "report.html"


def write_report(folder: TuningFolder) -> Path:
    """Write the page and the pictures of a folder; return the page.

    Raises:
        ConfigError: they cannot be written.
    """
    tuning = gathered(folder)
    body = [
        tiles(tuning),
        *[page.paragraph(note, "warn") for note in _warnings(tuning)],
        *_pictures(folder.folder, tuning),
        *tables(tuning),
        *surroundings(tuning),
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
                tuning.front, chosen=tuning.expected(), label=plan_name(tuning), weighted=weighted
            )
            made.append(("front", "What every budget gives, by allocator", figure))
        if tuning.profile is not None:
            figure = tensors_figure(tuning.profile, tuning.plan)
            made.append(("tensors", "Bytes and sensitivity per tensor", figure))
            figure = curves_figure(tuning.profile, tuning.plan)
            made.append(("curves", "Error against bytes, tensor by tensor", figure))
        if tuning.runs:
            figure = comparison_figure(
                tuning.runs,
                "Training with the plan",
                "downlink none in all runs, at equal bytes up",
            )
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


def _warnings(tuning: Tuning) -> list[str]:
    notes = list(tuning.notes)
    if tuning.profile is not None and tuning.profile.skipped:
        notes.append(f"The profile was cut short. {'; '.join(tuning.profile.skipped)}.")
    expected = tuning.expected()
    if expected is not None and expected.unknown:
        names = ", ".join(expected.unknown[:5])
        notes.append(f"Of {names} the profile does not know what the plan's codec loses.")
    if tuning.profile is not None and tuning.plan is not None:
        finest = exhausted(tuning.profile, tuning.plan)
        notes += [f"{exhausted_note(finest)}."] if finest else []
    return notes


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
