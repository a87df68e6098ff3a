"""Numbers for people, and the tables at the end of a run and of a comparison.

``*_columns`` and ``*_cells`` give the same cells to the terminal and to the HTML report;
``write_csv`` gives plain numbers to other programs. On the terminal headings are short, and
columns are left out where it is narrow.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from flowerpress.simulations.fitted import Column, FittedTable
from flowerpress.simulations.metrics import RoundRecord, ratio
from flowerpress.simulations.record import Run

__all__ = [
    "NOTHING",
    "RUN_COLUMNS",
    "ComparisonRow",
    "comparison_cells",
    "comparison_columns",
    "comparison_key",
    "comparison_setting",
    "comparison_table",
    "duration",
    "human_bytes",
    "human_rate",
    "human_ratio",
    "percent",
    "run_cells",
    "run_table",
    "summarise",
    "tensor_bytes",
    "told",
    "write_csv",
]

NOTHING = "–"
"""Stands where nothing was measured."""

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


def human_bytes(count: float | None) -> str:
    """Return e.g. "512 B", "1.50 KiB", "12.3 MiB": three digits, powers of 1024."""
    if count is None:
        return NOTHING
    if count < 1024:
        return f"{count:.0f} B"
    value = float(count)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        value /= 1024
        if value < 999.5 or unit == "TiB":
            break
    return f"{_three(value)} {unit}"


def human_rate(bits: float) -> str:
    """Return e.g. "64 kbit/s", "2.5 Mbit/s", "unlimited"; powers of 1000."""
    if bits == math.inf:
        return "unlimited"
    for factor, unit in ((1e9, "Gbit/s"), (1e6, "Mbit/s"), (1e3, "kbit/s")):
        if bits >= factor:
            return f"{bits / factor:.3g} {unit}"
    return f"{bits:.3g} bit/s"


def human_ratio(value: float | None) -> str:
    """Return e.g. "3.47x", "34.7x", "347x"."""
    return NOTHING if value is None else f"{_three(value)}x"


def percent(value: float | None, digits: int = 1) -> str:
    """Return a fraction of 1 as e.g. "91.2%"."""
    return NOTHING if value is None else f"{100 * value:.{digits}f}%"


def duration(seconds: float | None) -> str:
    """Return e.g. "4.2 s", "1:32", "1:02:03"."""
    if seconds is None:
        return NOTHING
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


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


@dataclass(frozen=True)
class ComparisonRow:
    """One codec over its seeds. Bytes and seconds are means over the seeds.

    accuracy: of the last evaluated round, mean over seeds, a fraction; spread: half the range.
    behind: percentage points behind the first row, negative if ahead; None for the first row.
    up_per_client_round: bytes of one client's update. Ratios are float32 bytes by bytes sent.
    simulated_seconds: mean over seeds, None without simulated links; missed: over all of them.
    """

    codec: str
    seeds: int
    accuracy: float | None
    accuracy_spread: float | None
    behind: float | None
    up_per_client_round: float | None
    total_up: float
    total_down: float
    ratio_up: float | None
    ratio_total: float | None
    seconds: float
    left_out: int
    unfinished: int
    simulated_seconds: float | None = None
    missed: int = 0

    @property
    def total(self) -> float:
        """Bytes of both directions."""
        return self.total_up + self.total_down


def summarise(runs: Sequence[Run]) -> list[ComparisonRow]:
    """Return one row per label, in the order of first appearance; the first is the reference."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.label, []).append(run)
    rows: list[ComparisonRow] = []
    for label, group in groups.items():
        finals = [run.evaluated[-1].accuracy for run in group if run.evaluated]
        known = [value for value in finals if value is not None]
        accuracy = sum(known) / len(known) if known else None
        reference = rows[0].accuracy if rows else None
        records = [record for run in group for record in run.records]
        up = sum(record.bytes_up for record in records)
        down = sum(record.bytes_down for record in records)
        raw_up = sum(record.raw_bytes_up for record in records)
        raw_down = sum(record.raw_bytes_down for record in records)
        updates = sum(record.clients for record in records if record.bytes_up)
        behind = None
        if accuracy is not None and reference is not None:
            behind = 100 * (reference - accuracy)
        seconds = sum(
            run.summary.seconds if run.summary else sum(record.seconds for record in run.records)
            for run in group
        )
        rows.append(
            ComparisonRow(
                codec=label,
                seeds=len(group),
                accuracy=accuracy,
                accuracy_spread=(max(known) - min(known)) / 2 if known else None,
                behind=behind,
                up_per_client_round=up / updates if updates else None,
                total_up=up / len(group),
                total_down=down / len(group),
                ratio_up=ratio(raw_up, up),
                ratio_total=ratio(raw_up + raw_down, up + down),
                seconds=seconds / len(group),
                left_out=sum(len(record.left_out) for record in records),
                unfinished=sum(not (run.summary and run.summary.finished) for run in group),
                simulated_seconds=_simulated(records, len(group)),
                missed=sum(record.missed for record in records),
            )
        )
    return rows


def comparison_columns(rows: Sequence[ComparisonRow]) -> list[str]:
    """Return the headings for ``comparison_cells``."""
    reference = rows[0].codec if rows else "the first"
    return [
        "Codec",
        "Seeds",
        "Final accuracy",
        f"Points behind {reference}",
        "Up per client and round",
        "Total up",
        "Total down",
        "Ratio up",
        "Ratio total",
        "Seconds",
        "Simulated time",
        "Missed",
    ]


def comparison_cells(row: ComparisonRow) -> list[str]:
    """Return a row as text, one cell for each of ``comparison_columns``."""
    accuracy = percent(row.accuracy, 2)
    if row.seeds > 1 and row.accuracy_spread is not None:
        accuracy = f"{accuracy} ± {100 * row.accuracy_spread:.2f}"
    seeds = f"{row.seeds} ({row.unfinished} unfinished)" if row.unfinished else str(row.seeds)
    return [
        row.codec,
        seeds,
        accuracy,
        NOTHING if row.behind is None else f"{row.behind + 0.0:.2f}".replace("-0.00", "0.00"),
        human_bytes(row.up_per_client_round),
        human_bytes(row.total_up),
        human_bytes(row.total_down),
        human_ratio(row.ratio_up),
        human_ratio(row.ratio_total),
        f"{row.seconds:.1f}",
        duration(row.simulated_seconds),
        str(row.missed) if row.missed else NOTHING,
    ]


def comparison_table(rows: Sequence[ComparisonRow]) -> FittedTable:
    """Return the comparison for the terminal; ``comparison_key`` explains its columns."""
    # A mean over fewer rounds than the others' is no comparison: that it is must stay in sight.
    seeds = None if any(row.unfinished for row in rows) else 1
    columns = [
        Column("Codec", text=True),
        Column("Seeds", drop=seeds),
        Column("Accuracy"),
        Column("Behind", drop=6),
        Column("Up/update", drop=3),
        Column("Up", drop=5),
        Column("Down", drop=4),
        Column("Ratio up", drop=2),
        Column("Ratio"),
        Column("Seconds", drop=0),
        Column("Simulated time", drop=4),
        Column("Missed", drop=3),
    ]
    cells = [comparison_cells(row) for row in rows]
    shown, kept = told([column.title for column in columns], cells)
    return FittedTable([column for column in columns if column.title in shown], kept)


def comparison_key(rows: Sequence[ComparisonRow]) -> str:
    """Return what the columns of ``comparison_table`` mean, the reference by its name."""
    reference = rows[0].codec if rows else "the first"
    spread = ", ± half the range over seeds" if any(row.seeds > 1 for row in rows) else ""
    return (
        f"Reference: {reference}. Behind: percentage points of accuracy behind it. Accuracy: of "
        f"the last evaluated round{spread}. Ratio: bytes of plain float32 by bytes sent."
    )


def comparison_setting(runs: Sequence[Run]) -> str:
    """Return task, clients, partition, rounds and seeds of a comparison, in a line."""
    config = next((run.config for run in runs if run.summary), {})
    clients = max((record.clients for run in runs for record in run.records), default=0)
    rounds = max((run.records[-1].round for run in runs if run.records), default=0)
    seeds = sorted({run.seed for run in runs if run.seed is not None})
    parts = [
        str(config.get("task", "")),
        _many(clients, "client") + (" a round" if config.get("fraction", 1.0) != 1.0 else ""),
        str(config.get("partition") or ""),
        _many(rounds, "round"),
        f"seed{'s' * (len(seeds) != 1)} {', '.join(map(str, seeds))}" if seeds else "",
    ]
    return "; ".join(part for part in parts if part)


def write_csv(path: Path, rows: Sequence[ComparisonRow]) -> Path:
    """Write the rows as CSV: bytes, seconds and fractions as plain numbers, nothing as ""."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(ComparisonRow)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
    return path


def _simulated(records: Sequence[RoundRecord], seeds: int) -> float | None:
    times = [r.simulated_seconds for r in records if r.simulated_seconds is not None]
    return sum(times) / seeds if times else None


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def _number(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.3f}"


def _three(value: float) -> str:
    if value < 9.995:
        return f"{value:.2f}"
    return f"{value:.1f}" if value < 99.95 else f"{value:.0f}"
