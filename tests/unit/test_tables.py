"""Units, sums by hand, and tables whose names cannot break out."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from flowerpress.simulations.comparison.tables import (
    ComparisonRow,
    comparison_cells,
    comparison_columns,
    comparison_table,
    summarise,
    write_csv,
)
from flowerpress.simulations.human import duration, human_bytes, human_ratio, percent
from flowerpress.simulations.metrics import RoundRecord
from flowerpress.simulations.record import Run
from flowerpress.simulations.summary import Summary
from flowerpress.simulations.tables import run_cells, run_table, tensor_bytes, told
from tests.unit.synthetic_runs import made_up_records


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (None, "–"),
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.00 KiB"),
        (1536, "1.50 KiB"),
        (10 * 1024 - 1, "10.0 KiB"),
        (99.96 * 1024, "100 KiB"),
        (999 * 1024, "999 KiB"),
        (1000 * 1024, "0.98 MiB"),
        (347 * 1024**2, "347 MiB"),
        (5 * 1024**4, "5.00 TiB"),
        (5000 * 1024**4, "5000 TiB"),
    ],
)
def test_bytes(count: float | None, text: str) -> None:
    assert human_bytes(count) == text


def test_ratios_percentages_and_times() -> None:
    assert [human_ratio(x) for x in (None, 1, 9.994, 9.996, 34.71, 346.7)] == [
        "–",
        "1.00x",
        "9.99x",
        "10.0x",
        "34.7x",
        "347x",
    ]
    assert [percent(x) for x in (None, 0.0, 0.9123, 1.0)] == ["–", "0.0%", "91.2%", "100.0%"]
    assert [duration(x) for x in (None, 4.24, 59.94, 59.96, 92.4, 3723)] == [
        "–",
        "4.2 s",
        "59.9 s",
        "1:00",
        "1:32",
        "1:02:03",
    ]


def _run(
    label: str, seed: int, accuracies: list[float | None], up: int, *, finished: bool = True
) -> Run:
    """Return a run of 2 clients whose float32 update has 1000 bytes each, in both directions."""
    records = [
        RoundRecord(
            round=number,
            seconds=2.0,
            accuracy=accuracy,
            clients=2 if number else 0,
            bytes_up=up if number else 0,
            bytes_down=500 if number else 0,
            raw_bytes_up=2000 if number else 0,
            raw_bytes_down=2000 if number else 0,
        )
        for number, accuracy in enumerate(accuracies)
    ]
    summary = Summary.of(records, config={"seed": seed}, seconds=10.0) if finished else None
    return Run(tuple(records), summary, Path(label) / f"seed-{seed}", label)


def test_a_comparison_adds_up_as_by_hand() -> None:
    rows = summarise(
        [
            _run("none", 0, [0.1, 0.8, 0.90], 2000),
            _run("stc", 0, [0.1, 0.6, 0.85], 40),
            _run("none", 1, [0.1, 0.7, 0.94], 2000),
            _run("stc", 1, [0.1, 0.88, None], 60, finished=False),
        ]
    )
    none, stc = rows
    assert (none.codec, none.seeds, none.behind, none.unfinished) == ("none", 2, None, 0)
    assert none.accuracy == pytest.approx(0.92)
    assert none.accuracy_spread == pytest.approx(0.02)
    assert (none.up_per_client_round, none.total_up, none.total_down) == (1000, 4000, 1000)
    assert (none.ratio_up, none.ratio_total, none.seconds) == (1.0, 1.6, 10.0)
    # (0.85 + 0.88) / 2 = 0.865; 80 and 120 bytes up over 8 updates; 6 s of rounds where unfinished
    assert stc.accuracy == pytest.approx(0.865)
    assert stc.accuracy_spread == pytest.approx(0.015)
    assert stc.behind == pytest.approx(5.5)
    assert (stc.up_per_client_round, stc.total_up, stc.total) == (25, 100, 1100)
    assert stc.ratio_up == 40.0
    assert stc.ratio_total == pytest.approx(16000 / 2200)
    assert (stc.seconds, stc.unfinished) == (8.0, 1)
    assert comparison_cells(stc) == [
        "stc",
        "2 (1 unfinished)",
        "86.50% ± 1.50",
        "5.50",
        "25 B",
        "100 B",
        "1000 B",
        "40.0x",
        "7.27x",
        "8.0",
        "–",
        "–",
    ]
    assert len(comparison_columns(rows)) == len(comparison_cells(none))


def test_simulated_time_and_missed_updates_have_columns_where_there_are_any() -> None:
    plain = _run("none", 0, [0.1, 0.8], 2000)
    timed = [replace(r, simulated_seconds=40.0, missed=r.round) for r in plain.records]
    linked = replace(plain, label="linked", records=tuple(timed))
    rows = summarise([plain, linked, linked])
    assert [(row.simulated_seconds, row.missed) for row in rows] == [(None, 0), (80.0, 2)]
    assert comparison_cells(rows[1])[-2:] == ["1:20", "2"]
    headings = [column.title for column in comparison_table(rows).columns]
    assert headings[-2:] == ["Simulated time", "Missed"]
    assert comparison_table(rows[:1]).columns[-1].title == "Seconds"
    assert [c.title for c in run_table(linked).columns if c.title in ("Missed", "Simulated")] == [
        "Missed",
        "Simulated",
    ]
    assert run_table(plain).columns[-1].title == "Seconds"
    assert told(["Round", "Missed"], [["1", "–"]]) == (["Round"], [["1"]])


def test_runs_without_evaluation_or_bytes_have_no_numbers() -> None:
    (row,) = summarise([_run("none", 0, [None, None], 0)])
    assert (row.accuracy, row.accuracy_spread, row.behind) == (None, None, None)
    assert (row.up_per_client_round, row.ratio_up) == (None, None)
    assert comparison_cells(row)[2:5] == ["–", "–", "–"]
    assert summarise([]) == []


def test_a_codec_ahead_of_the_reference_is_negative() -> None:
    rows = summarise([_run("none", 0, [0.1, 0.90], 9), _run("stc", 0, [0.1, 0.91], 9)])
    assert comparison_cells(rows[1])[3] == "-1.00"
    rows = summarise([_run("none", 0, [0.9], 9), _run("stc", 0, [0.9000001], 9)])
    assert comparison_cells(rows[1])[3] == "0.00"


def test_tensors_are_sorted_and_the_rest_added_up() -> None:
    record = RoundRecord(
        round=1,
        seconds=1.0,
        bytes_up=100,
        bytes_down=70,
        up_by_tensor={"a": 10, "b": 50, "c": 5, "d": 5},
        down_by_tensor={"a": 10, "b": 20, "c": 30, "e": 10},
    )
    assert tensor_bytes([record, record], largest=2) == [
        ("b", 100, 40),
        ("c", 10, 60),
        ("others (3 tensors)", 30, 40),
        ("(headers)", 60, 0),
    ]
    assert tensor_bytes([RoundRecord(round=1, seconds=1.0, bytes_up=5)]) == []


def test_a_round_as_cells() -> None:
    records = made_up_records(bad_rounds=[2], every=2)
    assert run_cells(records[0])[-5:-2] == ["–", "–", "–"]
    assert run_cells(records[1])[1:4] == ["–", "–", "–"]
    assert run_cells(records[2])[6] == "1"


def test_names_are_not_markup_on_the_terminal() -> None:
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    run = _run("[bold red]x[/]", 0, [0.1, 0.5], 100)
    console.print(comparison_table(summarise([run])))
    console.print(run_table(run, last=1))
    text = console.export_text()
    assert "[bold red]x[/]" in text
    assert "50.0%" in text
    assert "10.0%" not in text


def test_csv_holds_plain_numbers(tmp_path: Path) -> None:
    rows = summarise([_run("none", 0, [0.1, 0.9], 2000), _run('a,"b"', 0, [None, None], 40)])
    path = write_csv(tmp_path / "comparison.csv", rows)
    with path.open(newline="", encoding="utf-8") as file:
        first, second = csv.DictReader(file)
    assert list(first) == list(ComparisonRow.__dataclass_fields__)
    assert (float(first["accuracy"]), float(first["total_up"])) == (0.9, 2000.0)
    assert (second["codec"], second["accuracy"], second["behind"]) == ('a,"b"', "", "")
