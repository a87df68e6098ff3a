"""What an engine costs by itself: seconds a round when clients do nothing, beside Flower's own.

    python benchmarks/engines.py [--csv FILE] [--engines inline,workers,ray] [--cases 100x1k,...]

A client adds a fixed vector to the model and answers at once. ``plain`` is stock FedAvg without
compression, so only the engine and Flower's aggregation; ``none`` and ``stc`` add ``press()`` and
``Pressed`` with these codecs, both ways. Given is the median round after the first, which has
the first model's broadcast, imports and compilation in it. Flower's engine runs on Ray with two
actors; its start (about ten seconds a run) is not counted.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg, Strategy

from flowerpress.client import press
from flowerpress.server import Pressed
from flowerpress.simulations.engines.grid import server_identity
from flowerpress.simulations.engines.inline import InlineGrid
from flowerpress.simulations.engines.ordering import ordered

CASES = {"100x1k": (100, 1_000), "10x1M": (10, 1_000_000), "100x1M": (100, 1_000_000)}
CODECS = ("plain", "none", "stc")
ENGINES = ("inline", "ray")


def make_client(parameters: int, codec: str) -> ClientApp:
    """Return a client whose training is one addition."""
    change = np.random.default_rng(0).standard_normal(parameters, np.float32) * np.float32(0.01)
    app = ClientApp(mods=[] if codec == "plain" else [press()])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        model = message.content.array_records["arrays"]["weight"].numpy() + change
        arrays = ArrayRecord({"weight": Array(model)})
        metrics = MetricRecord({"num-examples": 1})
        return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)

    @app.query()
    def query(message: Message, context: Context) -> Message:
        partition = MetricRecord({"partition-id": int(context.node_config["partition-id"])})
        return Message(RecordDict({"partition": partition}), reply_to=message)

    return app


def make_server(clients: int, parameters: int, codec: str, rounds: int, out: str) -> ServerApp:
    """Return a server that runs the rounds and writes their seconds to ``out`` as JSON."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        ends: list[float] = []

        def evaluate(server_round: int, arrays: ArrayRecord) -> None:
            ends.append(time.perf_counter())

        strategy: Strategy = FedAvg(fraction_evaluate=0.0, min_available_nodes=clients)
        if codec != "plain":
            strategy = Pressed(strategy, uplink=codec, seed=0)
        start = ArrayRecord({"weight": Array(np.zeros(parameters, np.float32))})
        strategy.start(ordered(grid, clients), start, rounds, evaluate_fn=evaluate)
        Path(out).write_text(json.dumps(list(np.diff(ends))))

    return app


def measure(engine: str, clients: int, parameters: int, codec: str, rounds: int) -> float:
    """Return the median seconds of a round after the first."""
    with tempfile.TemporaryDirectory() as folder:
        out = str(Path(folder) / "seconds.json")
        if engine == "inline":
            grid = InlineGrid(make_client(parameters, codec), clients)
            context = Context(1, 1, {}, RecordDict(), {})
            with server_identity(1):
                make_server(clients, parameters, codec, rounds, out)(grid, context)
        else:
            from flowerpress.simulations.engines.ray import FlowerLink

            # Flower's engine imports the apps from a file: this one, with the two made at its end.
            made = f"server = make_server({clients}, {parameters}, {codec!r}, {rounds}, {out!r})"
            source = Path(__file__).read_text(encoding="utf-8").partition("\nif __name__ ==")[0]
            with FlowerLink() as link:
                source += f"\nclient = make_client({parameters}, {codec!r})\n{made}\n"
                link.run(source, clients, workers=2)
        seconds = json.loads(Path(out).read_text())
    return float(statistics.median(seconds[1:]))


def main() -> int:
    """Measure, print the table and write the CSV."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--engines", default=",".join(ENGINES))
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--codecs", default=",".join(CODECS))
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    logging.getLogger("flwr").setLevel(logging.ERROR)
    engines = chosen.engines.split(",")
    rows = []
    print(
        f"{'clients x parameters':22}{'codec':8}"
        + "".join(f"{e + ' s/round':>18}" for e in engines)
    )
    for case in chosen.cases.split(","):
        for codec in chosen.codecs.split(","):
            print(f"{case:22}{codec:8}", end="", flush=True)
            for engine in engines:
                seconds = measure(engine, *CASES[case], codec, chosen.rounds)
                rows.append((case, codec, engine, round(seconds, 4)))
                print(f"{seconds:18.3f}", end="", flush=True)
            print()
    if chosen.csv:
        with chosen.csv.open("w", newline="") as file:
            csv.writer(file).writerows([("case", "codec", "engine", "seconds_a_round"), *rows])
    return 0


if __name__ == "__main__":
    sys.exit(main())
