"""Clients whose uplinks differ 300 times: a budget for each against one budget for all.

python benchmarks/links.py --out runs/links
python benchmarks/links.py --out runs/links --task digits --rounds 20 --deadline 0.1 --seeds 5

Every client trains on its part of the task and sends its update within a round's deadline, or is
left out of that round (its update goes into its next one). Who is slow is drawn anew for each seed.
Times are simulated from the bytes that were sent: see flowerpress.simulations.links. Downlinks take
no time, since they are the same for all and not what is compared. Runs that are already in the
folder are kept.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from flowerpress.simulations.human import human_bytes, percent
from flowerpress.simulations.links import read_links
from flowerpress.simulations.record import Run, is_finished, read_run

__all__ = ["Method", "Outcome", "methods", "outcome", "outcome_table", "time_to"]

LINKS = "loguniform(low=64k,high=20M,latency={latency})"
LATENCY = 0.1  # seconds
CODEC = "rd(relative=3,fast=true)"
"""What shares the budget. The fast coder: a round of 20 clients shall take seconds on one core."""

REACHED = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9)


@dataclass(frozen=True)
class Method:
    """How much a client may send: a policy's ``[budget]``, and in how many seconds."""

    name: str
    budget: str
    bytes: int | None
    waits: bool = False

    def policy(self) -> str:
        """Return the TOML of the policy."""
        return f'default = "{CODEC}"\n\n[budget]\n{self.budget}\n'


@dataclass(frozen=True)
class Outcome:
    """What one run came to. ``in_time`` counts updates, ``full`` rounds in which none was late."""

    method: str
    seed: int
    budget: int | None
    rounds: int
    asked: int
    in_time: int
    full: int
    bytes_up: int
    seconds: float
    accuracy: float
    reached: tuple[float | None, ...]


def methods(rates: Sequence[float], seconds: float, *, waiting: bool = False) -> list[Method]:
    """Return a budget for each client, and uniform ones for comparison.

    Args:
        rates: uplinks in bits a second.
        seconds: that the uplink may take.
        waiting: also one uniform budget without a deadline: the server waits for the slowest.
    """

    def uniform(name: str, rate: float, *, waits: bool = False) -> Method:
        size = int(seconds * rate / 8)
        return Method(name, f"target_bytes = {size}", size, waits)

    def own(name: str, rate: float) -> Method:
        # In its first round the server takes a client for one of ``rate``; one that knows its own
        # keeps to the deadline with it, but sends no more than it is asked for.
        return Method(name, f"deadline = {seconds!r}\nrate = {rate:.0f}", None)

    middle = float(np.median(rates))
    made = [
        own("each its own", min(rates)),
        own("each its own, at once", max(rates)),
        uniform("slowest's for all", min(rates)),
        uniform("middle one for all", middle),
        uniform("mean for all", float(np.mean(rates))),
    ]
    return [*made, uniform("middle one, waiting", middle, waits=True)] if waiting else made


def outcome(run: Run, method: Method) -> Outcome:
    """Add up a run."""
    rounds = [record for record in run.records if record.clients]
    final = run.evaluated[-1].accuracy
    return Outcome(
        method.name,
        run.seed or 0,
        method.bytes,
        len(rounds),
        sum(r.clients for r in rounds),
        sum(r.clients - len({left.client for left in r.left_out}) for r in rounds),
        sum(not r.left_out for r in rounds),
        sum(r.bytes_up for r in rounds),
        sum(r.simulated_seconds or 0.0 for r in rounds),
        final if final is not None else float("nan"),
        tuple(time_to(run, accuracy) for accuracy in REACHED),
    )


def time_to(run: Run, accuracy: float) -> float | None:
    """Return the simulated seconds after which the model was first seen to be that accurate."""
    clock = 0.0
    for record in run.records:
        clock += record.simulated_seconds or 0.0
        if record.accuracy is not None and record.accuracy >= accuracy:
            return clock
    return None


def outcome_table(outcomes: Sequence[Outcome]) -> Table:
    """Return a line for each method, means over its seeds.

    A time is that of the seeds which got there, with their number where some did not.
    """
    table = Table(box=SIMPLE)
    table.add_column("budget", no_wrap=True)
    for title in ("bytes", "in time", "full rounds", "sent up", "seconds", "accuracy"):
        table.add_column(title, justify="right", no_wrap=True)
    for accuracy in REACHED:
        table.add_column(f"s to {100 * accuracy:g}%", justify="right", no_wrap=True)
    for name in dict.fromkeys(each.method for each in outcomes):
        own = [each for each in outcomes if each.method == name]
        finals = [each.accuracy for each in own]
        half = 100 * (max(finals) - min(finals)) / 2
        rounds = sum(each.rounds for each in own)
        times = []
        for at in range(len(REACHED)):
            known = [t for each in own if (t := each.reached[at]) is not None]
            some = f" ({len(known)}/{len(own)})" if 0 < len(known) < len(own) else ""
            times.append(f"{np.mean(known):.1f}{some}" if known else "-")
        table.add_row(
            name,
            human_bytes(own[0].budget) if own[0].budget else "its rate's",
            percent(sum(each.in_time for each in own) / sum(each.asked for each in own)),
            f"{sum(each.full for each in own)} of {rounds}",
            human_bytes(float(np.mean([each.bytes_up for each in own]))),
            f"{np.mean([each.seconds for each in own]):.1f}",
            f"{percent(float(np.mean(finals)))} ± {half:.1f}",
            *times,
        )
    return table


def run_all(options: argparse.Namespace) -> list[Run]:
    """Run every method with every seed, and return the runs by method."""
    from flowerpress.simulations.config import load_config
    from flowerpress.simulations.engines import run
    from flowerpress.simulations.quiet import hush_flower

    hush_flower()
    links = LINKS.format(latency=LATENCY)
    rates = [link.uplink for link in read_links(links, options.clients, 0).links]
    runs = []
    for method in methods(rates, options.deadline - LATENCY, waiting=options.waiting):
        place = options.out / method.name.replace(" ", "-").replace("'", "").replace(",", "")
        place.mkdir(parents=True, exist_ok=True)
        policy = place / "policy.toml"
        policy.write_text(method.policy(), encoding="utf-8")
        for seed in range(options.seeds):
            folder = place / f"seed-{seed}"
            if not is_finished(folder):
                words = [
                    f"task={options.task}",
                    f"clients={options.clients}",
                    f"rounds={options.rounds}",
                    f"evaluate_every={options.every}",
                    f"training.max_samples={options.samples}",
                    f"seed={seed}",
                    f"links={links}",
                    "" if method.waits else f"deadline={options.deadline}",
                    f'uplink="{policy.absolute()}"',
                    "downlink=fp16",
                    f"out={folder.absolute()}",
                ]
                if options.partition:
                    words.append(f"partition={options.partition}")
                run(load_config(None, [word for word in words if word]))
            runs.append(read_run(folder, method.name))
            last = runs[-1].records[-1]
            print(f"{method.name}, seed {seed}: {percent(last.accuracy)}", file=sys.stderr)
    return runs


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", default="mnist")
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--every", type=int, default=2, help="rounds between evaluations")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=150, help="of a client in a round")
    parser.add_argument("--partition", default="", help="how examples are divided")
    parser.add_argument("--deadline", type=float, default=1.0, help="seconds of a round")
    parser.add_argument("--waiting", action="store_true", help="also without a deadline")
    parser.add_argument("--out", type=Path, required=True, help="folder for runs, CSV and PNG")
    options = parser.parse_args()
    runs = run_all(options)
    by_name = {
        m.name: m for m in methods(_rates(options), options.deadline - LATENCY, waiting=True)
    }
    outcomes = [outcome(run, by_name[run.label]) for run in runs]
    Console(width=200).print(outcome_table(outcomes))
    _write_csv(options.out / "links.csv", outcomes)
    _draw(options.out / "links.png", runs, options)


def _rates(options: argparse.Namespace) -> list[float]:
    links = read_links(LINKS.format(latency=LATENCY), options.clients, 0)
    return [link.uplink for link in links.links]


def _write_csv(path: Path, outcomes: Sequence[Outcome]) -> None:
    names = [field.name for field in fields(Outcome) if field.name != "reached"]
    reached = [f"seconds_to_{100 * accuracy:g}" for accuracy in REACHED]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*names, *reached])
        for each in outcomes:
            row = asdict(each)
            writer.writerow([*(row[name] for name in names), *each.reached])


def _draw(path: Path, runs: Sequence[Run], options: argparse.Namespace) -> None:
    from flowerpress.simulations.canvas import drawing, save_png
    from flowerpress.simulations.chart import TIME, comparison_figure

    title = f"{options.task}: {options.clients} clients with uplinks from 64 kbit/s to 20 Mbit/s"
    note = f"{options.seeds} seeds, a deadline of {options.deadline:g} s; band: lowest to highest"
    with drawing():
        figure = comparison_figure(runs, title, note, TIME)
        if figure is not None:
            save_png(figure, path)


if __name__ == "__main__":
    main()
