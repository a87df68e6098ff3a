"""Bytes until an accuracy is reached, by hand."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks import reached
from benchmarks.reached import bytes_to, rounds_to
from flowerpress.simulations.record import RoundRecord, Run


def _run(accuracies: list[float | None], up: int) -> Run:
    records = [RoundRecord(round=0, seconds=0.1, accuracy=0.1)]
    for at, accuracy in enumerate(accuracies, start=1):
        records.append(
            RoundRecord(round=at, seconds=0.1, accuracy=accuracy, bytes_up=up, bytes_down=10)
        )
    return Run(tuple(records), None, Path("seed-0"), "m")


def test_bytes_and_round_of_an_accuracy() -> None:
    run = _run([0.5, None, 0.8, 0.7], 90)
    assert (bytes_to(run, 0.1), rounds_to(run, 0.1)) == (0, 0)
    assert (bytes_to(run, 0.5), rounds_to(run, 0.5)) == (100, 1)
    assert (bytes_to(run, 0.6), rounds_to(run, 0.6)) == (300, 3)
    assert (bytes_to(run, 0.9), rounds_to(run, 0.9)) == (None, None)


def test_ratios_are_of_the_same_seed() -> None:
    ours = {0: _run([0.8], 90), 1: _run([0.6, 0.8], 90), 2: _run([0.5], 90)}
    theirs = {0: _run([0.8], 990), 1: _run([0.8], 2990), 2: _run([0.8], 990)}
    # 1000 over 100 and 3000 over 200; the third seed never gets there.
    found = reached._cells(ours, 0.79, theirs, 0.8)
    assert found == ("150 B", "1.5", "2 of 3", "12.5x")
    assert reached._cells({0: _run([0.1], 1)}, 0.5, theirs, 0.8)[0] == "–"


def test_a_folder_without_runs_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["reached", str(tmp_path)])
    with pytest.raises(SystemExit):
        reached.main()
    assert "no runs in" in capsys.readouterr().err
