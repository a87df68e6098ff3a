"""What a user sees while a run goes on: ``LiveRun``, and ``LiveCompare`` for several.

On a terminal a display that redraws itself; elsewhere (a file, a pipe, a CI log) one plain line a
round, so that nothing is lost and nothing blinks. Neither touches the run itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from flowerpress.simulations.fitted import Column, FittedTable, visible
from flowerpress.simulations.metrics import RoundRecord
from flowerpress.simulations.tables import (
    NOTHING,
    duration,
    human_bytes,
    human_ratio,
    percent,
)

__all__ = ["LiveCompare", "LiveRun", "plain_line"]

Clock = Callable[[], float]

_LIVE_COLUMNS = (
    Column("round"),
    Column("accuracy"),
    Column("loss", drop=2),
    Column("worst client", drop=1),
    Column("up", drop=3),
    Column("down", drop=3),
    Column("ratio"),
    Column("left out", drop=0),
)

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


class _Display:
    """The start and stop that both displays share. Subclasses draw."""

    def __init__(self, console: Console | None, clock: Clock) -> None:
        self.console = console or Console()
        self._clock = clock
        self._began = clock()
        self._live: Live | None = None

    def start(self) -> Self:
        """Begin to draw, or print the first line where there is no terminal."""
        self._began = self._clock()
        if self.console.is_terminal and not self.console.is_dumb_terminal:
            self._live = Live(console=self.console, get_renderable=self._draw, refresh_per_second=4)
            self._live.start()
        else:
            self._print(self._title())
        return self

    def stop(self) -> None:
        """Leave the last state on the screen; stopping twice is fine."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _changed(self, line: Text) -> None:
        if self._live is not None:
            self._live.refresh()
        else:
            self._print(line)

    def _print(self, line: Text) -> None:
        self.console.print(line, soft_wrap=True, highlight=False)

    def _left(self, done: int, total: int) -> float | None:
        """Seconds to go: the mean time of what is done times what is not. None before that."""
        return (self._clock() - self._began) / done * (total - done) if done else None

    def _bar(self, done: int, total: int, kept: int = 0) -> Table:
        """``kept`` of ``done`` took no time."""
        left = self._left(done - kept, total - kept)
        grid = Table.grid(padding=(0, 2))
        bar = ProgressBar(total=max(total, 1), completed=done, width=40)
        spent = duration(self._clock() - self._began)
        rest = "" if left is None or done >= total else f"{duration(left)} left"
        grid.add_row(bar, f"{done}/{total}", spent, Text(rest, style="cyan"))
        return grid

    def _title(self) -> Text:
        raise NotImplementedError

    def _draw(self) -> RenderableType:
        raise NotImplementedError


class LiveRun(_Display):
    """One run. ``rounds`` is the last round's number; ``update`` takes each record as it comes.

    ``console`` and ``clock`` (seconds, monotonic) are for tests; ``tail`` rounds stay on screen.
    """

    def __init__(
        self,
        task: str,
        *,
        rounds: int,
        clients: int | None = None,
        uplink: str = NOTHING,
        downlink: str = NOTHING,
        tail: int = 8,
        console: Console | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        super().__init__(console, clock)
        self._parts = {
            "task": task,
            "clients": NOTHING if clients is None else str(clients),
            "up": uplink,
            "down": downlink,
        }
        self._rounds = rounds
        self._tail = tail
        # A new tuple each time: the display draws from a thread of its own.
        self._records: tuple[RoundRecord, ...] = ()
        self._sent = (0, 0)
        self._left_out = 0

    def update(self, record: RoundRecord) -> None:
        """Show a round that has ended."""
        self._records = (*self._records, record)[-self._tail :]
        self._sent = (self._sent[0] + record.bytes_up, self._sent[1] + record.bytes_down)
        self._left_out += len(record.left_out)
        line = plain_line(record, self._rounds)
        left = self._left(record.round, self._rounds)
        if left is not None and record.round < self._rounds:
            line.append(f"  {duration(left)} left")
        self._changed(line)

    def _title(self) -> Text:
        line = Text("flowerpress", style="bold magenta")
        for name, value in self._parts.items():
            line.append(f"  {name} ", style="dim not bold").append(value, style="default bold")
        return line

    def _draw(self) -> RenderableType:
        records = self._records
        done = records[-1].round if records else 0
        rows = [_live_cells(record) for record in records]
        styles = [""] * (len(rows) - 1) + ["bold"]
        table = FittedTable(_LIVE_COLUMNS, rows, styles=styles, header_style="dim")
        total = Text(f"so far  {human_bytes(self._sent[0])} up, {human_bytes(self._sent[1])} down")
        if self._left_out:
            many = "s" * (self._left_out != 1)
            total.append(f", {self._left_out} update{many} left out", style="yellow")
        return Group(self._title(), self._bar(done, self._rounds), table, total)


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


class LiveCompare(_Display):
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


def plain_line(record: RoundRecord, rounds: int) -> Text:
    """Return a round as one line of text, as printed where there is no terminal."""
    parts = [f"round {record.round}/{rounds}"]
    if record.accuracy is not None:
        parts.append(f"accuracy {percent(record.accuracy)}")
    if record.loss is not None:
        parts.append(f"loss {record.loss:.3f}")
    if record.worst_client is not None:
        worst = record.worst_client
        parts.append(f"worst {percent(worst.accuracy)} (client {worst.client})")
    if record.bytes_total:
        parts.append(f"up {human_bytes(record.bytes_up)}  down {human_bytes(record.bytes_down)}")
        parts.append(f"ratio {human_ratio(record.ratio)}")
    if record.left_out:
        who = ", ".join(f"client {left.client}: {left.error}" for left in record.left_out)
        parts.append(f"left out {len(record.left_out)} ({who})")
    parts.append(duration(record.seconds))
    return Text("  ".join(parts))


def _live_cells(record: RoundRecord) -> list[str | Text]:
    worst = record.worst_client
    sent = record.bytes_total > 0
    return [
        str(record.round),
        percent(record.accuracy),
        NOTHING if record.loss is None else f"{record.loss:.3f}",
        f"{percent(worst.accuracy)} (#{worst.client})" if worst else NOTHING,
        human_bytes(record.bytes_up) if sent else NOTHING,
        human_bytes(record.bytes_down) if sent else NOTHING,
        human_ratio(record.ratio),
        Text(str(len(record.left_out)), style="yellow") if record.left_out else NOTHING,
    ]
