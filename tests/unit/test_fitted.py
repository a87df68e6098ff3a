"""Tables fit the terminal by leaving columns out, never by breaking what is in a cell."""

from __future__ import annotations

import io
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from flowerpress.simulations.comparison.tables import comparison_table, summarise
from flowerpress.simulations.fitted import Column, FittedTable, visible
from flowerpress.simulations.record import Run
from flowerpress.simulations.tables import run_table
from tests.unit.synthetic_runs import made_up_records


def _printed(table: FittedTable, width: int) -> list[str]:
    file = io.StringIO()
    Console(file=file, width=width, force_terminal=False).print(table)
    return [line.rstrip() for line in file.getvalue().splitlines()]


cells = st.text("abcdefgh0123", min_size=1, max_size=12)


@given(st.lists(st.tuples(cells, cells, cells, cells), min_size=1, max_size=5), st.integers(14, 70))
def test_whatever_fits_is_whole(rows: list[tuple[str, str, str, str]], width: int) -> None:
    columns = [
        Column("N", text=True),
        Column("A", drop=1),
        Column("B", drop=0),
        Column("C", drop=2),
    ]
    table = FittedTable(columns, rows)
    lines = _printed(table, width)
    shown = table.shown(width)
    assert len(lines) == 1 + len(rows)
    assert max(map(len, lines)) <= width
    for line, row in zip(lines[1:], rows, strict=True):
        assert line.split() == [row[at] for at in shown]
    # Columns go in their order: B, then A, then C.
    assert shown in ([0, 1, 2, 3], [0, 1, 3], [0, 3], [0])
    if shown != [0, 1, 2, 3]:
        assert not all(len(line) <= width for line in _printed(FittedTable(columns, rows), 100))


def test_what_says_nothing_goes_first_and_names_are_folded_last() -> None:
    columns = [Column("name", text=True), Column("x", drop=0), Column("y", drop=1), Column("z")]
    rows = [["n" * 10, "1234567", "–", "12345"], ["m" * 30, "1234567", "", "12345"]]
    assert FittedTable(columns, rows).shown(49) == [0, 1, 2, 3]
    assert FittedTable(columns, rows).shown(48) == [0, 1, 3]
    lines = _printed(FittedTable(columns, rows), 30)
    assert max(map(len, lines)) <= 30
    assert "".join(line.split()[0] for line in lines[2:]) == "m" * 30
    assert all("12345" in line for line in (lines[1], lines[2]))


def test_control_characters_and_markup_are_shown() -> None:
    assert visible("a\x1b[31m\u202eb\n") == r"a\x1b[31m\u202eb\n"
    (_, line) = _printed(FittedTable([Column("n", text=True)], [["[red]\x1b[0m"]]), 40)
    assert line == r"[red]\x1b[0m"


def test_the_tables_of_runs_fit_80_columns() -> None:
    records = tuple(made_up_records(bad_rounds=[2]))
    codecs = ["none", "topk(density=0.005)", "stc(density=0.01)/int8"]
    runs = [Run(records, None, Path(codec), codec) for codec in codecs]
    for width in (60, 80, 100, 120):
        lines = _printed(run_table(runs[0]), width)
        assert len(lines) == 1 + len(records)
        assert max(map(len, lines)) <= width
        lines = _printed(comparison_table(summarise(runs)), width)
        assert max(map(len, lines)) <= width
        assert len(lines) == 4 or width == 60
    (head, *_) = _printed(comparison_table(summarise(runs)), 80)
    # That runs have not finished may not be left out.
    assert "Seeds" in head
