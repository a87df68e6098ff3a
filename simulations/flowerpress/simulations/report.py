"""``report.html`` of a run.

It is one file that refers to nothing outside itself: it can be mailed, archived, printed.
"""

from __future__ import annotations

from pathlib import Path

from flowerpress.simulations import page
from flowerpress.simulations.audit import (
    AUDIT_COLUMNS,
    CLIENT_COLUMNS,
    audit_cells,
    client_cells,
)
from flowerpress.simulations.canvas import drawing, save_png, svg
from flowerpress.simulations.human import NOTHING, duration, human_bytes, human_ratio, percent
from flowerpress.simulations.metrics import ratio
from flowerpress.simulations.plots import PLOTS
from flowerpress.simulations.record import Run, read_run
from flowerpress.simulations.summary import Final
from flowerpress.simulations.tables import RUN_COLUMNS, run_cells, told
from flowerpress.simulations.treated_table import treated_table

__all__ = ["write_report"]

_MOST_LEFT_OUT = 500
"""More refused updates than these would only make the page heavy; ``rounds.jsonl`` has them all."""

_PAIR = ("accuracy_bytes", "accuracy_time")
"""What accuracy costs: in bytes, and in time where links are simulated."""

_MOST_AUDITED = 1000


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
            page.section("Configuration", page.definitions(page.flat(summary.config))),
            page.section("Versions", page.definitions(summary.versions)),
        ]
    title = f"{run.config.get('task', 'Run')}: {run.label}"
    return page.write(run.folder / "report.html", page.page(title, _lead(run), body))


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


def _lead(run: Run) -> str:
    """Return what was run, in a line."""
    most = max((record.clients for record in run.records), default=0)
    parts = [f"{most} clients a round", f"seed {run.seed}" if run.seed is not None else ""]
    parts.append(str(run.config.get("partition") or ""))
    if run.summary and run.summary.tensors:
        count = len(run.summary.tensors)
        parts.append(f"model of {count} tensor{'s' * (count != 1)}")
    return ", ".join(part for part in parts if part)
