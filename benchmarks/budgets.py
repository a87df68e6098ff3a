"""Budgets in training: are they met, and which allocator learns most within them?

    python benchmarks/budgets.py --task mnist --out runs/budgets-mnist

For every budget, the same federation learns with each allocator's rates and with every seed; the
downlink is exact, so that runs differ in what clients send alone. Beside them stand the tuner's
plans, solved from one ``flowerpress tune profile`` made with another seed. Printed are the fewest
and the most bytes that a client sent in a round, on average over the round's clients, as a part of
its budget, and the accuracy after the last round. A run that is in the folder is not made again.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flowerpress.simulations.comparison.plan import plan_comparison
from flowerpress.simulations.comparison.running import run_comparison
from flowerpress.simulations.config import SimulationConfig, load_config
from flowerpress.simulations.quiet import hush_flower
from flowerpress.simulations.record import Run

BUDGETS = (2048, 8192, 32768, 131072)
# What stands in a policy's [budget] beside the bytes, and whether it has a schedule.
POLICIES = {
    "uniform": 'allocator = "uniform"',
    "by-size": 'allocator = "by-size"',
    "by-phase": 'allocator = "uniform"\n[schedule]\nkind = "phase"',
    "dp": 'allocator = "dp"\nerror = "norm"',
    "lambda": 'allocator = "lambda"',
}
SETTINGS = ("rounds=6", "clients=4", "training.max_samples=200", "evaluate_every=6", "threads=1")
_PROFILE_SEED = 100


@dataclass(frozen=True)
class Row:
    """One allocator within one budget, over seeds. Bytes are a fraction of the round's budget."""

    budget: int
    allocator: str
    accuracy: float
    spread: float
    loss: float
    least: float
    most: float
    mean_bytes: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Run, print the table, and write it as CSV."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("settings", nargs="*", default=list(SETTINGS), metavar="KEY=VALUE")
    parser.add_argument("--task", default="mnist")
    parser.add_argument("--budgets", default=",".join(map(str, BUDGETS)), help="bytes")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--tuned", default="fisher", help="sensitivities of the tuner's plans")
    parser.add_argument("--menu", default="rd", help="of the policies and the tuner")
    parser.add_argument("--profile-seconds", type=int, default=120)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(arguments)
    hush_flower()
    base = load_config(None, [f'task="{given.task}"', *given.settings])
    tuned = [name for name in given.tuned.split(",") if name]
    if tuned:
        _profile(given.out, base, given.settings, given.menu, given.profile_seconds)
    print(f"{given.task}: {' '.join(given.settings)}, menu {given.menu}, {given.seeds} seeds\n")
    rows = []
    for budget in map(int, given.budgets.split(",")):
        files = [_policy(given.out, budget, name, given.menu) for name in POLICIES]
        files += [_plan(given.out, budget, name) for name in tuned]
        codecs = ",".join(f"{file}/none" for file in files)
        planned = plan_comparison(base, codecs, given.seeds, given.out / str(budget))
        runs = run_comparison(planned, workers=given.workers)
        rows += [
            _row(budget, file.stem, [r for r in runs if r.label == f"{file.stem}/none"])
            for file in files
        ]
        _print([row for row in rows if row.budget == budget])
        _save(given.out / "budgets.csv", rows)


def _policy(folder: Path, budget: int, name: str, menu: str) -> Path:
    path = folder / "policies" / str(budget) / f"{name}.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    head = f'[budget]\ntarget_bytes = {budget}\nmenu = "{menu}"\nevery = 4\n'
    path.write_text(head + POLICIES[name] + "\n")
    return path


def _profile(
    folder: Path, base: SimulationConfig, settings: Sequence[str], menu: str, seconds: int
) -> None:
    path = folder / "profile.json"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        own = [s for s in settings if not s.startswith(("rounds", "evaluate_every"))]
        command = ["flowerpress", "tune", "profile", *own, f"seed={_PROFILE_SEED}"]
        command += ["--task", base.task, "--menu", menu, "--rounds", "3", "--sensitivity", "fisher"]
        command += ["--time-budget", str(seconds), "-o", str(path)]
        subprocess.run(command, check=True)


def _plan(folder: Path, budget: int, sensitivity: str) -> Path:
    path = folder / "policies" / str(budget) / f"tuned-{sensitivity}.json"
    if not path.is_file():
        command = ["flowerpress", "tune", "solve", str(folder / "profile.json")]
        command += ["--target-bytes", str(budget), "--sensitivity", sensitivity, "-o", str(path)]
        subprocess.run(command, check=True, capture_output=True)
    return path


def _row(budget: int, name: str, runs: Sequence[Run]) -> Row:
    shares: list[float] = []
    sent: list[float] = []
    for run in runs:
        for record in run.records:
            if record.round:
                each = record.bytes_up / record.clients
                sent.append(each)
                # What one client may send in this round: a schedule moves it.
                shares.append(each / (record.target_bytes or (budget, budget))[1])
    last = [run.records[-1] for run in runs]
    accuracies = [record.accuracy or 0.0 for record in last]
    losses = [record.loss or 0.0 for record in last]
    return Row(
        budget,
        name,
        statistics.mean(accuracies),
        (max(accuracies) - min(accuracies)) / 2,
        statistics.mean(losses),
        min(shares),
        max(shares),
        statistics.mean(sent),
    )


def _print(rows: Sequence[Row]) -> None:
    print(f"{'bytes':>7}  {'allocator':<13} {'accuracy':>15}  {'loss':>6}  {'of the budget':>17}")
    for r in rows:
        print(
            f"{r.budget:>7}  {r.allocator:<13} {100 * r.accuracy:>7.2f} ± {100 * r.spread:>4.2f}%"
            f"  {r.loss:>6.3f}  {100 * r.least:>6.2f} - {100 * r.most:>6.2f}%"
        )
    print(flush=True)


def _save(path: Path, rows: Sequence[Row]) -> None:
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(Row.__dataclass_fields__)
        writer.writerows(vars(row).values() for row in rows)


if __name__ == "__main__":
    main()
