"""What a user sees while several runs go on."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rich.console import Console, Group, RenderableType
from rich.text import Text

from flowerpress.simulations.display import Clock, Display
from flowerpress.simulations.fitted import Column, FittedTable, visible
from flowerpress.simulations.human import (
    NOTHING,
    duration,
    human_bytes,
    human_ratio,
    percent,
)
from flowerpress.simulations.live import plain_line
from flowerpress.simulations.metrics import RoundRecord

__all__ = ["LiveCompare"]

_COMPARE_COLUMNS = (
    Column("codec", text=True),
    Column("seed"),
    Column("state", text=True),
    Column("round", drop=3),
    Column("accuracy"),
    Column("up", drop=1),
    Column("down", drop=0),
    Column("ratio", drop=2),
)


@dataclass(frozen=True)
class _Row:
    codec: str
    seed: int
    state: str = "waiting"
    round: int = 0
    accuracy: float | None = None
    up: int = 0
    down: int = 0
    raw: int = 0
    message: str = ""


_STATES = {
    "waiting": "dim",
    "running": "bold cyan",
    "done": "green",
    "kept": "green",
    "failed": "bold red",
}


class LiveCompare(Display):
    """Several runs: one row for each (codec, seed) of ``runs``, in that order."""

    def __init__(
        self,
        task: str,
        runs: Sequence[tuple[str, int]],
        *,
        rounds: int,
        console: Console | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        super().__init__(console, clock)
        self._task = task
        self._rounds = rounds
        self._rows = {(codec, seed): _Row(codec, seed) for codec, seed in runs}

    def update(self, codec: str, seed: int, record: RoundRecord) -> None:
        """Show a round of one run; its row runs until the last round has come."""
        self._add(codec, seed, record)
        line = Text.assemble((f"{codec} seed {seed}", "bold"), "  ")
        line.append_text(plain_line(record, self._rounds))
        left = self._overall()
        if left is not None:
            line.append(f"  {duration(left)} left")
        self._changed(line)

    def _add(self, codec: str, seed: int, record: RoundRecord) -> None:
        old = self._rows[codec, seed]
        row = replace(
            old,
            state="done" if record.round >= self._rounds else "running",
            round=record.round,
            accuracy=old.accuracy if record.accuracy is None else record.accuracy,
            up=old.up + record.bytes_up,
            down=old.down + record.bytes_down,
            raw=old.raw + record.raw_bytes_up + record.raw_bytes_down,
        )
        self._rows[codec, seed] = row

    def fail(self, codec: str, seed: int, message: str) -> None:
        """Show that a run ended with an error; the others go on."""
        self._rows[codec, seed] = replace(self._rows[codec, seed], state="failed", message=message)
        self._changed(Text(f"{codec} seed {seed}  failed: {message}"))

    def keep(self, codec: str, seed: int, records: Sequence[RoundRecord]) -> None:
        """Show a run that was finished before: none of its rounds takes any time now."""
        for record in records:
            self._add(codec, seed, record)
        self._rows[codec, seed] = replace(self._rows[codec, seed], state="kept")
        self._changed(Text(f"{codec} seed {seed}  kept: finished before"))

    def _done(self) -> int:
        """Rounds that need no more waiting for; those of a failed run are among them."""
        rows = tuple(self._rows.values())
        return sum(self._rounds if row.state == "failed" else row.round for row in rows)

    def _kept(self) -> int:
        return sum(row.round for row in tuple(self._rows.values()) if row.state == "kept")

    def _overall(self) -> float | None:
        kept = self._kept()
        done, total = self._done() - kept, self._rounds * len(self._rows) - kept
        return self._left(done, total) if done < total else None

    def _title(self) -> Text:
        line = Text("flowerpress", style="bold magenta")
        line.append(f"  comparing {len(self._rows)} runs on ", style="dim not bold")
        return line.append(self._task, style="default bold")

    def _draw(self) -> RenderableType:
        cells: list[list[str | Text]] = []
        failures: list[Text] = []
        for row in tuple(self._rows.values()):
            sent = row.up + row.down
            cells.append(
                [
                    row.codec,
                    str(row.seed),
                    Text(row.state, style=_STATES[row.state]),
                    f"{row.round}/{self._rounds}" if row.state != "waiting" else NOTHING,
                    percent(row.accuracy),
                    human_bytes(row.up) if sent else NOTHING,
                    human_bytes(row.down) if sent else NOTHING,
                    human_ratio(row.raw / sent if sent else None),
                ]
            )
            if row.message:
                said = f"{row.codec} seed {row.seed} failed: {row.message}"
                failures.append(Text(visible(said), style="red"))
        table = FittedTable(_COMPARE_COLUMNS, cells, header_style="dim")
        bar = self._bar(self._done(), self._rounds * len(self._rows), self._kept())
        return Group(self._title(), bar, table, *failures)
