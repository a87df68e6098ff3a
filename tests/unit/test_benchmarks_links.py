"""The arithmetic of the benchmark of links: budgets, who was in time, and how soon."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.links import REACHED, Method, methods, outcome, outcome_table, time_to
from flowerpress.simulations.record import LeftOut, RoundRecord, Run


def _run(accuracies: list[float | None], late: int, seed: int = 0) -> Run:
    """Return a run of 4 clients whose rounds take 2 s; client 3 is late in the first ``late``."""
    records = [RoundRecord(round=0, seconds=0.1, accuracy=0.1, simulated_seconds=0.0)]
    for at, accuracy in enumerate(accuracies, start=1):
        left = (LeftOut(3, "NoReply", "", "missed the deadline"),) * (at <= late)
        records.append(
            RoundRecord(
                round=at,
                seconds=0.1,
                accuracy=accuracy,
                clients=4,
                bytes_up=1000,
                left_out=left,
                simulated_seconds=2.0,
                missed=len(left),
            )
        )
    return Run(tuple(records), None, Path(f"seed-{seed}"), "m")


def test_budgets_by_hand() -> None:
    made = methods([64_000.0, 1e6, 2e6], 0.5, waiting=True)
    assert [method.bytes for method in made] == [None, None, 4000, 62_500, 63_833, 62_500]
    assert [method.waits for method in made] == [False] * 5 + [True]
    assert made[0].budget == "deadline = 0.5\nrate = 64000"
    assert made[1].budget == "deadline = 0.5\nrate = 2000000"
    assert "target_bytes = 4000\n" in made[2].policy()
    assert len(methods([1e6], 1.0)) == 5


def test_an_outcome_by_hand() -> None:
    method = Method("m", "", 4000)
    run = _run([None, 0.62, None, 0.55, None, 0.81], late=2)
    found = outcome(run, method)
    assert (found.rounds, found.asked, found.in_time, found.full) == (6, 24, 22, 4)
    assert (found.bytes_up, found.seconds, found.accuracy) == (6000, 12.0, 0.81)
    assert found.reached == (4.0, 4.0, 12.0, 12.0, None, None)
    assert time_to(run, 0.05) == 0.0
    assert len(found.reached) == len(REACHED)


def test_the_table_says_how_many_seeds_got_there() -> None:
    method = Method("m", "", 4096)
    found = [
        outcome(_run([0.9, 0.95], late=0, seed=0), method),
        outcome(_run([0.6, 0.65], late=2, seed=1), method),
    ]
    cells = [list(column.cells) for column in outcome_table(found).columns]
    assert [column[0] for column in cells[:7]] == [
        "m",
        "4.00 KiB",
        "87.5%",
        "2 of 4",
        "1.95 KiB",
        "4.0",
        "80.0% ± 15.0",
    ]
    assert [column[0] for column in cells[7:]] == [
        "2.0",
        "2.0",
        "2.0 (1/2)",
        "2.0 (1/2)",
        "2.0 (1/2)",
        "2.0 (1/2)",
    ]
