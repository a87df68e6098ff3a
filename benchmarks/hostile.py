"""Hostile clients: stock Flower's FedAvg beside defences on compressed updates.

    python benchmarks/hostile.py [--task digits] [--data FOLDER] [--partition iid] [--seeds 3]
                                 [--rounds 15] [--set training.max_samples=100] [--csv FILE]

A fifth of ten clients is hostile (``attack=``, see ``flowerpress.simulations.attacks``). ``stock``
is ``flwr.serverapp.strategy.FedAvg`` as Flower ships it, float32 models both ways, without anything
of flowerpress but the task. Given is the accuracy on the test set after the last round: the mean of
the seeds, and in brackets the worst. The first row has no hostile client; ``behind`` is how many
points the mean of a row is below stock's first row. A run that is in the CSV file is kept.
"""

from __future__ import annotations

import argparse
import csv
import logging
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from flwr.app import ArrayRecord

from flowerpress.simulations.app import make_client_app
from flowerpress.simulations.config import SimulationConfig, load_config
from flowerpress.simulations.engines import run
from flowerpress.simulations.engines.grid import server_identity
from flowerpress.simulations.engines.inline import InlineGrid
from flowerpress.simulations.engines.ordering import ordered
from flowerpress.simulations.judging import judge
from flowerpress.simulations.loaded import load
from flowerpress.simulations.record import read_run
from flowerpress.simulations.strategies import make_strategy

ATTACKS = {
    "none": None,
    "nan": "nan",
    "counts": "counts(value=1e12)",
    "scale": "scale(factor=100)",
    "signflip": "signflip(scale=10)",
    "noise": "noise(scale=10)",
    "zeros": "zeros",
}
# Name, uplink (and downlink), defence; stock has neither.
SYSTEMS = {
    "stock": ("", None),
    "undefended": ("int8", None),
    "examples+clip": ("int8", "examples+clip"),
    "examples+clip on stc": ("stc(density=0.1)", "examples+clip"),
    "clip+trimmed": ("int8", "clip+trimmed(share=0.2)"),
    "median": ("int8", "median"),
}
COLUMNS = ("task", "partition", "rounds", "settings", "attack", "system", "seed", "accuracy")
Row = tuple[str, ...]


def stock(config: SimulationConfig) -> float:
    """Return the accuracy of plain Flower after the last round."""
    loaded = load(config)
    clients = len(loaded.partition)
    torch.set_num_threads(1)
    torch.manual_seed(config.seed)
    model = loaded.task.build()
    # press() lets everything through where the server has no Pressed.
    grid = InlineGrid(make_client_app(config), clients)
    with server_identity(grid.run.run_id):
        result = make_strategy(config, clients).start(
            ordered(grid, clients, config.seed),
            ArrayRecord(model.state_dict()),
            num_rounds=config.rounds,
            timeout=3600.0,
        )
    model.load_state_dict(result.arrays.to_torch_state_dict())
    return judge(loaded, model).accuracy


def defended(config: SimulationConfig) -> float:
    """Return the accuracy of a simulation after the last round."""
    with tempfile.TemporaryDirectory() as folder:
        records = read_run(run(config.model_copy(update={"out": Path(folder) / "run"}))).records
    accuracy = records[-1].accuracy
    assert accuracy is not None
    return accuracy


def key_of(config: SimulationConfig, settings: str, attack: str, system: str) -> Row:
    """Return what names a run in the file."""
    partition = config.partition or ""
    return (config.task, partition, str(config.rounds), settings, attack, system, str(config.seed))


def read(path: Path | None) -> dict[Row, float]:
    """Return the runs of an earlier attempt."""
    if path is None or not path.is_file():
        return {}
    with path.open(newline="") as file:
        return {tuple(row[:-1]): float(row[-1]) for row in list(csv.reader(file))[1:]}


def measure(
    base: SimulationConfig, settings: str, attacks: list[str], systems: list[str], seeds: int
) -> Iterator[tuple[Row, SimulationConfig, str]]:
    """Yield the runs that are due: what names them, their configuration, their system."""
    for attack in attacks:
        for system in systems:
            uplink, defence = SYSTEMS[system]
            for seed in range(seeds):
                change = {"seed": seed, "attack": ATTACKS[attack], "defence": defence}
                config = base.model_copy(update={**change, "uplink": uplink or "none"})
                yield key_of(config, settings, attack, system), config, system


def table(found: dict[Row, float], attacks: list[str], systems: list[str]) -> str:
    """Return the accuracies in percent as a table in Markdown."""

    def cell(attack: str, system: str, clean: float) -> str:
        values = [v for key, v in found.items() if key[4:6] == (attack, system)]
        if not values:
            return "–"
        mean = 100 * statistics.fmean(values)
        return f"{mean:.1f} ({100 * min(values):.1f}), {clean - mean:+.1f}"

    clean = 100 * statistics.fmean(v for key, v in found.items() if key[4:6] == ("none", "stock"))
    lines = [
        "| attack by 20% | " + " | ".join(systems) + " |",
        "|---" * (1 + len(systems)) + "|",
    ]
    for attack in attacks:
        cells = " | ".join(cell(attack, system, clean) for system in systems)
        lines.append(f"| {attack} | {cells} |")
    return "\n".join(lines) + "\n\nmean (worst seed), points behind stock without hostile clients"


def main() -> int:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--task", default="digits")
    parser.add_argument("--data", default=os.environ.get("FLOWERPRESS_DATA"))
    parser.add_argument("--partition", default="iid")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--set", nargs="*", default=[], help="other keys of the configuration")
    parser.add_argument("--attacks", default=",".join(ATTACKS))
    parser.add_argument("--systems", default=",".join(SYSTEMS))
    parser.add_argument("--csv", type=Path)
    chosen = parser.parse_args()
    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    words = [f"task={chosen.task}", f"partition={chosen.partition}", f"rounds={chosen.rounds}"]
    words += [f"evaluate_every={chosen.rounds}", "clients=10", *chosen.set]
    if chosen.data and chosen.task != "digits":
        words.append(f"data={chosen.data}")
    attacks, systems = chosen.attacks.split(","), chosen.systems.split(",")
    done = read(chosen.csv)
    settings, found = " ".join(chosen.set), {}
    for key, config, system in measure(
        load_config(None, words), settings, attacks, systems, chosen.seeds
    ):
        if key not in done:
            done[key] = (stock if system == "stock" else defended)(config)
            print(*key, f"{done[key]:.4f}", file=sys.stderr, flush=True)
            if chosen.csv:
                with chosen.csv.open("w", newline="") as file:
                    csv.writer(file).writerows([COLUMNS, *((*k, v) for k, v in done.items())])
        found[key] = done[key]
    print(table(found, attacks, systems))
    return 0


if __name__ == "__main__":
    sys.exit(main())
