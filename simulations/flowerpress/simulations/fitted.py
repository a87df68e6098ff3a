"""Tables for the terminal that are never wider than it, and never break a cell into lines."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

__all__ = ["Column", "FittedTable", "visible"]

_GAP = 2
_NARROWEST = 12

# What a terminal acts upon instead of showing: control codes, and marks that turn text around.
_ACTING = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    """Return text whose control characters are written out, such as \\x1b."""
    return _ACTING.sub(lambda found: ascii(found[0])[1:-1], text)


@dataclass(frozen=True)
class Column:
    """A heading. ``text``: holds words, set to the left. ``drop``: where the terminal is too
    narrow, columns go in this order, lowest first; None stays whatever happens.
    """

    title: str
    text: bool = False
    drop: int | None = None


class FittedTable:
    """A table that leaves columns out where the terminal is narrow; the first holds names.

    Columns in which no row has anything to say (``nothing`` in every cell) go before all others.
    If what must stay is still too wide, the names are folded: a name is never cut off. Cells are
    text, never markup.
    """

    def __init__(
        self,
        columns: Sequence[Column],
        rows: Sequence[Sequence[str | Text]],
        *,
        styles: Sequence[str] = (),
        header_style: str = "bold",
        last_apart: bool = False,
        nothing: str = "–",
    ) -> None:
        self.columns = tuple(columns)
        self.rows = [[_cell(value) for value in row] for row in rows]
        self._styles = tuple(styles)
        self._header_style = header_style
        self._last_apart = last_apart
        self._nothing = {"", nothing}

    def shown(self, width: int) -> list[int]:
        """Return the indices of the columns that fit into ``width`` characters."""
        needed = self._widths()
        kept = list(range(len(self.columns)))
        going = sorted(
            (at for at in kept if self.columns[at].drop is not None), key=self._drops_before
        )
        while going and sum(needed[at] + _GAP for at in kept) - _GAP > width:
            kept.remove(going.pop(0))
        return kept

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw what fits; called by rich."""
        width = options.max_width
        kept = self.shown(width)
        needed = self._widths()
        # A last resort: names are folded into what the other columns leave.
        left = width - sum(needed[at] + _GAP for at in kept[1:])
        table = Table(
            box=None, header_style=self._header_style, pad_edge=False, padding=(0, _GAP, 0, 0)
        )
        for at in kept:
            column = self.columns[at]
            folded = at == 0 and left < needed[0]
            table.add_column(
                Text(column.title),
                justify="left" if column.text else "right",
                no_wrap=not folded,
                overflow="fold",
                width=max(left, _NARROWEST) if folded else needed[at],
            )
        last = len(self.rows) - 1
        for number, row in enumerate(self.rows):
            style = self._styles[number] if number < len(self._styles) else None
            if self._last_apart and number == last:
                table.add_row(*[Text("─" * needed[at], style="dim") for at in kept])
            table.add_row(*[row[at] for at in kept], style=style)
        yield table

    def _widths(self) -> list[int]:
        titles = [Text(column.title).cell_len for column in self.columns]
        return [
            max([title, *[row[at].cell_len for row in self.rows]])
            for at, title in enumerate(titles)
        ]

    def _drops_before(self, at: int) -> tuple[bool, int]:
        says = any(row[at].plain not in self._nothing for row in self.rows)
        return says, self.columns[at].drop or 0


def _cell(value: str | Text) -> Text:
    return value if isinstance(value, Text) else Text(visible(value))
