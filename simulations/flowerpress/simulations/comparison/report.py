"""The page, picture and CSV of a comparison.

The page is one file that refers to nothing outside itself. The folder holds ``<codec>/seed-<n>/``
(a run's folder each) and ``comparison.*``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from flowerpress.compression.errors import ConfigError
from flowerpress.simulations import page
from flowerpress.simulations.canvas import drawing, save_png, svg
from flowerpress.simulations.chart import BYTES, TIME, comparison_figure
from flowerpress.simulations.comparison.tables import (
    comparison_cells,
    comparison_columns,
    summarise,
    write_csv,
)
from flowerpress.simulations.human import NOTHING, human_bytes, human_ratio, percent
from flowerpress.simulations.metrics import ratio
from flowerpress.simulations.record import Run
from flowerpress.simulations.tables import told

__all__ = ["write_comparison"]

_RUNS_COLUMNS = (
    "Codec",
    "Seed",
    "Rounds",
    "Final accuracy",
    "Best accuracy",
    "Total up",
    "Total down",
    "Ratio total",
    "Left out",
    "Seconds",
    "Folder",
)


def write_comparison(folder: Path | str, runs: Sequence[Run], *, command: str = "") -> Path:
    """Write ``comparison.html``, ``comparison.png`` and ``comparison.csv``; return the page.

    The first run's label is the reference of "points behind". Without any evaluated round there is
    no picture. Raises ConfigError where ``runs`` is empty.
    """
    folder = Path(folder)
    if not runs:
        raise ConfigError(f"{folder}: there is no run to compare")
    rows = summarise(runs)
    task = str(runs[0].config.get("task", "")).strip()
    heading = f"Comparison on {task}" if task else "Comparison"
    lead = _setting(runs)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_csv(folder / "comparison.csv", rows)
    except OSError as error:
        raise ConfigError(f"{folder}: cannot write the comparison there: {error}") from error
    pictures = []
    with drawing():
        for name, measure in (("comparison", BYTES), ("comparison_time", TIME)):
            title = f"{task}: {measure.title.lower()}" if task else measure.title
            made = comparison_figure(runs, title, lead, measure)
            if made is not None:
                save_png(made, folder / f"{name}.png")
                pictures.append(page.figure(svg(made, name), title))
    many = any(row.seeds > 1 for row in rows)
    explained = (
        f"Accuracy is that of the last evaluated round{', mean ± half the range over seeds' * many}"
        f". Bytes are what was sent{' (mean over seeds)' * many}; a ratio is how many times larger "
        "plain float32 would have been. Points are percentage points of accuracy."
    )
    body = [
        *[page.paragraph(note, "warn") for run in runs for note in run.notes],
        page.side_by_side(pictures),
        page.section(
            "Codecs",
            page.table(
                *told(comparison_columns(rows), [comparison_cells(r) for r in rows]),
                text=[0],
                name=0,
            ),
            page.paragraph(explained),
        ),
        page.section(
            "Runs",
            page.table(
                _RUNS_COLUMNS, [_run_row(run, folder) for run in runs], text=[0, 10], name=0
            ),
        ),
        page.section("Command", page.preformatted(command) if command else ""),
        page.section("Configuration", page.definitions(_common(runs))),
        page.section(
            "Versions", page.definitions(runs[0].summary.versions if runs[0].summary else {})
        ),
    ]
    return page.write(folder / "comparison.html", page.page(heading, lead, body))


def _run_row(run: Run, folder: Path) -> list[str]:
    finals = [record.accuracy for record in run.evaluated if record.accuracy is not None]
    up = sum(record.bytes_up for record in run.records)
    down = sum(record.bytes_down for record in run.records)
    raw = sum(record.raw_bytes_up + record.raw_bytes_down for record in run.records)
    spent = run.summary.seconds if run.summary else sum(r.seconds for r in run.records)
    inside = run.folder.is_relative_to(folder)
    return [
        run.label,
        NOTHING if run.seed is None else str(run.seed),
        str(run.records[-1].round if run.records else 0),
        percent(finals[-1] if finals else None, 2),
        percent(max(finals, default=None), 2),
        human_bytes(up),
        human_bytes(down),
        human_ratio(ratio(raw, up + down)),
        str(sum(len(record.left_out) for record in run.records)),
        f"{spent:.1f}",
        str(run.folder.relative_to(folder) if inside else run.folder),
    ]


def _setting(runs: Sequence[Run]) -> str:
    """Return what all runs of a comparison share, in a line."""
    seeds = {run.seed for run in runs}
    most = max((record.clients for run in runs for record in run.records), default=0)
    parts = [f"{most} clients a round", str(_common(runs).get("partition", ""))]
    parts.append(f"{max((r.records[-1].round for r in runs if r.records), default=0)} rounds")
    parts.append(f"{len(seeds)} seed{'s' * (len(seeds) != 1)}")
    if len(seeds) > 1:
        parts.append("band: lowest to highest seed")
    return ", ".join(part for part in parts if part and part != NOTHING)


def _common(runs: Sequence[Run]) -> dict[str, str]:
    """Return the settings that all runs with a summary share."""
    configs = [page.flat(run.config) for run in runs if run.summary]
    if not configs:
        return {}
    first, *others = configs
    return {k: v for k, v in first.items() if all(other.get(k) == v for other in others)}
