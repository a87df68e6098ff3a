"""A display of what goes on.

On a terminal it redraws itself; elsewhere (a file, a pipe, a CI log) it prints one plain line a
round, so that nothing is lost and nothing blinks. It does not touch the run itself.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from flowerpress.simulations.human import duration

__all__ = ["Clock", "Display"]

Clock = Callable[[], float]


class Display:
    """The start, stop and bar that all displays share. Subclasses draw."""

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
