"""The rounds of a run as tables: the same cells for the terminal and for the HTML report.

On the terminal headings are short, and columns are left out where it is narrow.
"""

from __future__ import annotations

from collections.abc import Sequence

from flowerpress.simulations.fitted import Column, FittedTable
from flowerpress.simulations.human import (
    NOTHING,
    duration,
    human_bytes,
    human_ratio,
    percent,
)
from flowerpress.simulations.metrics import RoundRecord
from flowerpress.simulations.record import Run

__all__ = ["RUN_COLUMNS", "run_cells", "run_table", "tensor_bytes", "told"]

OVERHEAD = "(headers)"

RUN_COLUMNS = (
    "Round",
    "Accuracy",
    "Loss",
    "Worst client",
    "Train loss",
    "Clients",
    "Left out",
    "Missed",
    "Up",
    "Down",
    "Ratio",
    "Seconds",
    "Simulated",
)
"""Of a round; those of ``LINKED`` are only for runs on simulated links."""

LINKED = ("Missed", "Simulated", "Simulated time")
"""Headings of columns that stay away where nothing is in them."""


_RUN_FITTED = (
    Column("Round"),
    Column("Accuracy"),
    Column("Loss", drop=5),
    Column("Worst client", drop=4),
    Column("Train loss", drop=2),
    Column("Clients", drop=0),
    Column("Left out", drop=3),
    Column("Missed", drop=3),
    Column("Up", drop=6),
    Column("Down", drop=6),
    Column("Ratio"),
    Column("Seconds", drop=1),
    Column("Simulated", drop=5),
)
"""``RUN_COLUMNS`` for the terminal."""


def run_cells(record: RoundRecord) -> list[str]:
    """Return a round as text, one cell for each of ``RUN_COLUMNS``."""
    worst = record.worst_client
    return [
        str(record.round),
        percent(record.accuracy),
        _number(record.loss),
        f"{percent(worst.accuracy)} (#{worst.client})" if worst else NOTHING,
        _number(record.train_loss),
        str(record.clients) if record.round else NOTHING,
        str(len(record.left_out)) if record.left_out else NOTHING,
        str(record.missed) if record.missed else NOTHING,
        human_bytes(record.bytes_up) if record.bytes_total else NOTHING,
        human_bytes(record.bytes_down) if record.bytes_total else NOTHING,
        human_ratio(record.ratio),
        f"{record.seconds:.2f}",
        duration(record.simulated_seconds),
    ]


def told(
    columns: Sequence[str], rows: Sequence[Sequence[str]]
) -> tuple[list[str], list[list[str]]]:
    """Return headings and rows without the columns of ``LINKED`` in which nothing is."""
    kept = [
        at
        for at, name in enumerate(columns)
        if name not in LINKED or any(row[at] != NOTHING for row in rows)
    ]
    return [columns[at] for at in kept], [[row[at] for at in kept] for row in rows]


def run_table(run: Run, last: int | None = None) -> FittedTable:
    """Return the rounds of a run (the ``last`` ones only, if given) for the terminal."""
    records = run.records if last is None else run.records[-last:]
    columns, rows = told(RUN_COLUMNS, [run_cells(record) for record in records])
    return FittedTable([column for column in _RUN_FITTED if column.title in columns], rows)


def tensor_bytes(records: Sequence[RoundRecord], largest: int = 25) -> list[tuple[str, int, int]]:
    """Return (name, bytes up, bytes down) of the run's ``largest`` tensors, biggest first.

    The rest is added up as "others (n tensors)". What a message needs beside its tensors follows
    last; without any bytes by tensor the list is empty.
    """
    up: dict[str, int] = {}
    down: dict[str, int] = {}
    for record in records:
        for total, part in ((up, record.up_by_tensor), (down, record.down_by_tensor)):
            for name, count in part.items():
                total[name] = total.get(name, 0) + count
    rows = [(name, up.get(name, 0), down.get(name, 0)) for name in {**up, **down}]
    rows.sort(key=lambda row: (-row[1] - row[2], row[0]))
    rest = rows[largest:]
    rows = rows[:largest]
    if rest:
        name = f"others ({len(rest)} tensors)"
        rows.append((name, sum(row[1] for row in rest), sum(row[2] for row in rest)))
    over_up = sum(record.bytes_up for record in records) - sum(up.values())
    over_down = sum(record.bytes_down for record in records) - sum(down.values())
    if rows and max(over_up, over_down) > 0:
        rows.append((OVERHEAD, max(over_up, 0), max(over_down, 0)))
    return rows


def _number(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.3f}"
