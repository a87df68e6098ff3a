"""What a comparison comes to, a row for each codec: for the terminal, the report and as CSV.

``comparison_columns`` and ``comparison_cells`` give the same cells to the terminal and to the HTML
report; ``write_csv`` gives plain numbers to other programs.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from flowerpress.simulations.fitted import Column, FittedTable
from flowerpress.simulations.human import (
    NOTHING,
    duration,
    human_bytes,
    human_ratio,
    percent,
)
from flowerpress.simulations.metrics import RoundRecord, ratio
from flowerpress.simulations.record import Run
from flowerpress.simulations.tables import told

__all__ = [
    "ComparisonRow",
    "comparison_cells",
    "comparison_columns",
    "comparison_key",
    "comparison_setting",
    "comparison_table",
    "summarise",
    "write_csv",
]


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
