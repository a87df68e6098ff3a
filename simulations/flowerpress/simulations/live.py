"""What a user sees while a run goes on."""

from __future__ import annotations

import time

from rich.console import Console, Group, RenderableType
from rich.text import Text

from flowerpress.simulations.display import Clock, Display
from flowerpress.simulations.fitted import Column, FittedTable
from flowerpress.simulations.human import NOTHING, duration, human_bytes, human_ratio, percent
from flowerpress.simulations.metrics import RoundRecord

__all__ = ["LiveRun", "plain_line"]

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


class LiveRun(Display):
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
