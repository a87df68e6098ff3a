"""Bytes in both directions until an accuracy is first seen, from folders of comparisons.

python benchmarks/reached.py runs/compare-mnist
python benchmarks/reached.py runs/short runs/long --behind 0.01
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from flowerpress.simulations.human import human_bytes, human_ratio, percent
from flowerpress.simulations.record import Run, read_run

__all__ = ["bytes_to", "rounds_to"]


def bytes_to(run: Run, accuracy: float) -> int | None:
    """Return the bytes, up and down, until the model was first seen to be that accurate."""
    moved = 0
    for record in run.records:
        moved += record.bytes_up + record.bytes_down
        if record.accuracy is not None and record.accuracy >= accuracy:
            return moved
    return None


def rounds_to(run: Run, accuracy: float) -> int | None:
    """Return the round after which that was."""
    return next(
        (r.round for r in run.records if r.accuracy is not None and r.accuracy >= accuracy), None
    )


def gathered(folders: Sequence[Path]) -> dict[str, dict[int, Run]]:
    """Return the finished runs of comparisons, by folder's name and seed; later ones win."""
    found: dict[str, dict[int, Run]] = defaultdict(dict)
    for folder in folders:
        for path in sorted(folder.glob("*/seed-*")):
            found[path.parent.name][int(path.name.removeprefix("seed-"))] = read_run(path)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__
    )
    parser.add_argument("folders", nargs="+", type=Path, help="what `flowerpress compare` left")
    parser.add_argument(
        "--accuracies",
        default="0.90,0.94,0.96,0.97",
        help="of the reference (default 0.90,0.94,0.96,0.97)",
    )
    parser.add_argument(
        "--behind", type=float, default=0.0, help="that others may be behind it (default 0)"
    )
    parser.add_argument("--reference", help="name of a run's folder (default: the one most sent)")
    args = parser.parse_args()
    runs = gathered(args.folders)
    if not runs:
        parser.error(f"no runs in {', '.join(map(str, args.folders))}")
    levels = [float(each) for each in args.accuracies.split(",")]

    def sent(name: str) -> float:
        totals = [
            sum(r.bytes_up + r.bytes_down for r in run.records) for run in runs[name].values()
        ]
        return float(np.mean(totals))

    reference = args.reference or max(runs, key=sent)
    if reference not in runs:
        parser.error(f"no run {reference!r}; there are {', '.join(runs)}")
    table = Table(box=SIMPLE)
    for title in ("reference at", "run", "bytes", "round", "seeds", "times fewer"):
        table.add_column(title, justify="left" if title == "run" else "right", no_wrap=True)
    for level in levels:
        for name in [reference, *(name for name in runs if name != reference)]:
            own = level if name == reference else level - args.behind
            table.add_row(percent(level), name, *_cells(runs[name], own, runs[reference], level))
        table.add_section()
    Console(soft_wrap=True).print(table)
    print(
        f"Bytes up and down until {reference} is that accurate and others are at most "
        f"{percent(args.behind)} less so:\nmeans over the seeds that got there, and the mean of "
        "each seed's ratio."
    )


def _cells(
    runs: dict[int, Run], level: float, others: dict[int, Run], reference: float
) -> tuple[str, str, str, str]:
    """Return bytes, round, seeds that got there, and the ratio to the reference's bytes."""
    found = {seed: moved for seed, run in runs.items() if (moved := bytes_to(run, level))}
    seeds = f"{len(found)} of {len(runs)}"
    if not found:
        return "–", "–", seeds, "–"
    rounds = [number for seed in found if (number := rounds_to(runs[seed], level)) is not None]
    ratios = [
        theirs / moved
        for seed, moved in found.items()
        if seed in others and (theirs := bytes_to(others[seed], reference))
    ]
    times = human_ratio(float(np.mean(ratios))) if ratios else "–"
    return human_bytes(float(np.mean(list(found.values())))), f"{np.mean(rounds):.1f}", seeds, times


if __name__ == "__main__":
    main()
