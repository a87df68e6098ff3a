"""``report.html`` of a run, and the page, picture and CSV of a comparison.

Both pages are one file that refers to nothing outside itself: it can be mailed, archived, printed.
A comparison's folder holds ``<codec>/seed-<n>/`` (a run's folder each) and ``comparison.*``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flowerpress.compression.errors import ConfigError
from flowerpress.simulations import page
from flowerpress.simulations.audit import (
    AUDIT_COLUMNS,
    CLIENT_COLUMNS,
    audit_cells,
    client_cells,
)
from flowerpress.simulations.canvas import drawing, save_png, svg
from flowerpress.simulations.chart import BYTES, TIME, comparison_figure
from flowerpress.simulations.comparison_tables import (
    comparison_cells,
    comparison_columns,
    summarise,
    write_csv,
)
from flowerpress.simulations.human import NOTHING, duration, human_bytes, human_ratio, percent
from flowerpress.simulations.metrics import ratio
from flowerpress.simulations.plots import PLOTS
from flowerpress.simulations.record import Run, read_run
from flowerpress.simulations.summary import Final
from flowerpress.simulations.tables import RUN_COLUMNS, run_cells, told
from flowerpress.simulations.treated_table import treated_table

__all__ = ["write_comparison", "write_report"]

_MOST_LEFT_OUT = 500
"""More refused updates than these would only make the page heavy; ``rounds.jsonl`` has them all."""

_PAIR = ("accuracy_bytes", "accuracy_time")
"""What accuracy costs: in bytes, and in time where links are simulated."""

_MOST_AUDITED = 1000

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


def write_report(folder: Path | str, *, plots: bool = True) -> Path:
    """Write ``report.html`` into a run's folder, and its pictures as PNG unless ``plots`` is off.

    An unfinished run is reported as far as it came. Raises ConfigError for a folder that holds no
    readable run.
    """
    run = read_run(folder)
    figures: dict[str, str] = {}
    with drawing():
        for name, (caption, draw) in PLOTS.items():
            made = draw(run)
            if made is not None:
                if plots:
                    save_png(made, run.folder / f"{name}.png")
                figures[name] = page.figure(svg(made, name), caption)
    summary = run.summary
    missing = "" if figures else page.paragraph("No round has been evaluated or measured yet.")
    body = [
        _tiles(run),
        *[page.paragraph(note, "warn") for note in run.notes],
        page.side_by_side([figures.pop(name) for name in _PAIR if name in figures]),
        *figures.values(),
        missing,
        page.section("Bytes on the wire", *_audited(run)),
        page.section("Updates left out", _left_out(run)),
        page.section("What the defence did", treated_table(run.records)),
        page.section("Rounds", page.table(*told(RUN_COLUMNS, [run_cells(r) for r in run.records]))),
    ]
    if summary is not None:
        body += [
            page.section("Command", page.preformatted(summary.command) if summary.command else ""),
            page.section("Configuration", page.definitions(_flat(summary.config))),
            page.section("Versions", page.definitions(summary.versions)),
        ]
    title = f"{run.config.get('task', 'Run')}: {run.label}"
    return _write(run.folder / "report.html", page.page(title, _lead(run), body))


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
    return _write(folder / "comparison.html", page.page(heading, lead, body))


def _tiles(run: Run) -> str:
    final = Final.of(run.records)
    best = max((r.accuracy for r in run.evaluated if r.accuracy is not None), default=None)
    up = sum(record.bytes_up for record in run.records)
    down = sum(record.bytes_down for record in run.records)
    raw_up = sum(record.raw_bytes_up for record in run.records)
    raw_down = sum(record.raw_bytes_down for record in run.records)
    both = ratio(raw_up + raw_down, up + down)
    left_out = sum(len(record.left_out) for record in run.records)
    spent = run.summary.seconds if run.summary else sum(r.seconds for r in run.records)
    loss = NOTHING if final.loss is None else f"{final.loss:.3f}"
    return page.tiles(
        [
            (percent(final.accuracy, 2), "final accuracy", f"best {percent(best, 2)}, loss {loss}"),
            (percent(final.worst_client_accuracy), "worst client", "accuracy on its own test data"),
            (human_bytes(up), "sent up", _smaller(ratio(raw_up, up))),
            (human_bytes(down), "sent down", _smaller(ratio(raw_down, down))),
            (human_ratio(both), "total ratio", f"{human_bytes(up + down)} both ways"),
            (
                str(run.records[-1].round if run.records else 0),
                "rounds",
                f"{duration(spent)}, {left_out or 'no'} update{'s' * (left_out != 1)} left out",
            ),
        ]
    )


def _smaller(value: float | None) -> str:
    return "nothing was sent" if value is None else f"{human_ratio(value)} smaller than float32"


def _left_out(run: Run) -> str:
    found = [(record.round, left) for record in run.records for left in record.left_out]
    if not found:
        return page.paragraph("None: every update of every client was accepted.")
    columns = ("Round", "Client", "Error", "Field", "Message")
    rows = [
        (str(number), str(left.client), left.error, left.field, left.message)
        for number, left in found[:_MOST_LEFT_OUT]
    ]
    more = len(found) - len(rows)
    note = page.paragraph(f"{more} more are in rounds.jsonl.") if more else ""
    return page.table(columns, rows, text=[2, 3, 4]) + note


def _audited(run: Run) -> list[str]:
    rows = audit_cells(run.records)
    if not rows:
        return []
    each = client_cells(run.records)
    shown = each[:_MOST_AUDITED]
    more = len(each) - len(shown)
    return [
        page.table(AUDIT_COLUMNS, rows, text=[0]),
        page.paragraph("By round and client:"),
        page.table(CLIENT_COLUMNS, shown, text=[2]),
        page.paragraph(f"{more} more are in rounds.jsonl.") if more else "",
    ]


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


def _clients(run: Run) -> int:
    return max((record.clients for record in run.records), default=0)


def _lead(run: Run) -> str:
    """Return what was run, in a line."""
    parts = [f"{_clients(run)} clients a round", f"seed {run.seed}" if run.seed is not None else ""]
    parts.append(str(run.config.get("partition") or ""))
    if run.summary and run.summary.tensors:
        count = len(run.summary.tensors)
        parts.append(f"model of {count} tensor{'s' * (count != 1)}")
    return ", ".join(part for part in parts if part)


def _setting(runs: Sequence[Run]) -> str:
    """Return what all runs of a comparison share, in a line."""
    seeds = {run.seed for run in runs}
    parts = [f"{max(map(_clients, runs))} clients a round", str(_common(runs).get("partition", ""))]
    parts.append(f"{max((r.records[-1].round for r in runs if r.records), default=0)} rounds")
    parts.append(f"{len(seeds)} seed{'s' * (len(seeds) != 1)}")
    if len(seeds) > 1:
        parts.append("band: lowest to highest seed")
    return ", ".join(part for part in parts if part and part != NOTHING)


def _common(runs: Sequence[Run]) -> dict[str, str]:
    """Return the settings that all runs with a summary share."""
    configs = [_flat(run.config) for run in runs if run.summary]
    if not configs:
        return {}
    first, *others = configs
    return {k: v for k, v in first.items() if all(other.get(k) == v for other in others)}


def _flat(config: Mapping[str, Any], before: str = "") -> dict[str, str]:
    """Return nested settings as dotted names and text, e.g. training.lr: 0.1."""
    flat: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{before}{key}.")
        elif value is None:
            flat[f"{before}{key}"] = NOTHING
        else:
            flat[f"{before}{key}"] = value if isinstance(value, str) else json.dumps(value)
    return flat


def _write(path: Path, text: str) -> Path:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error}") from error
    return path
