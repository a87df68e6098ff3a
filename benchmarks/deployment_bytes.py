"""What a deployment moves beside its updates: idle, for a run, and for each round.

python benchmarks/deployment_bytes.py
python benchmarks/deployment_bytes.py --rounds 10 --idle 120

A real SuperLink and two real SuperNodes on loopback, each behind a counting proxy, run the same app
as stock Flower and with flowerpress: a model of 1.0 million parameters in six tensors, whose
training is Laplacian noise. Every setting runs with one round and with --rounds more of them; the
difference is what a round takes. Bytes are of TCP's payload for one node, taken apart by Flower's
calls: what asks for work and says that a node lives ("waiting"), what a run begins with ("run"),
and messages with their models ("model"). With the grpc carrier updates cross beside Flower, and
another proxy stands before the exchange. Nothing has TLS here.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.http_tap import HttpTap, Tally
from flowerpress.simulations.engines.flower import free_port
from flowerpress.simulations.linkproxy import LinkProxy
from tests.wire.deployment import CLIENTS, Deployment
from tests.wire.third_party import project

SETTINGS = {
    "stock FedAvg": "plain",
    "Pressed, none, message": "none message",
    "Pressed, none, grpc": "none grpc",
    "Pressed, stc, message": "stc message",
    "Pressed, stc, grpc": "stc grpc",
}

COLUMNS = ("", "s", "way", "update", "gRPC", "head", "body", "waiting", "calls", "all")
"""Bytes but for the second and the last but one; "gRPC" and "body" are without the update."""

CLIENT = """\
import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from flowerpress.client import press

app = ClientApp(mods=[press()])


@app.train()
def train(msg, context):
    model = {k: v.numpy() for k, v in msg.content["arrays"].items()}
    rng = np.random.default_rng(context.node_config["partition-id"])
    new = {k: v + rng.laplace(0, 1e-3, v.shape).astype(v.dtype) for k, v in model.items()}
    arrays = ArrayRecord({k: Array(v) for k, v in new.items()})
    metrics = MetricRecord({"num-examples": 100})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=msg)
"""

SERVER = """\
import json
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

from flowerpress.server import Pressed
from flowerpress.server.exchange import ExchangeService

SHAPES = {"a": (784, 1024), "b": (1024,), "c": (1024, 200), "d": (200,), "e": (200, 10), "f": (10,)}
arrived = []
app = ServerApp()


class Counted(FedAvg):
    def aggregate_train(self, server_round, replies):
        replies = list(replies)
        arrived.append(sum(not reply.has_error() for reply in replies))
        return super().aggregate_train(server_round, replies)


@app.main()
def main(grid, context):
    rng = np.random.default_rng(0)
    first = {k: (0.05 * rng.standard_normal(v)).astype(np.float32) for k, v in SHAPES.items()}
    config = context.run_config
    codec, _, carrier = config["setting"].partition(" ")
    strategy, exchange = Counted(fraction_evaluate=0.0), None
    if carrier == "grpc":
        exchange = ExchangeService(config["exchange"], address=config["reached"])
        exchange.serve()
    if codec != "plain":
        strategy = Pressed(strategy, uplink=codec, run_id=1, seed=0, carrier=exchange)
    arrays = ArrayRecord({k: Array(v) for k, v in first.items()})
    sent = {}
    try:
        strategy.start(grid, arrays, num_rounds=config["num-server-rounds"])
        if codec != "plain":
            for number, moved in strategy.meter.rounds.items():
                sent[number] = [moved.uplink.total, moved.downlink.total]
    finally:
        if exchange is not None:
            exchange.stop()
        Path(config["out"]).write_text(json.dumps({"sent": sent, "arrived": arrived}))
"""


def write_app(folder: Path) -> Path:
    """Write the Flower app that trains by noise, and return its folder.

    Of its run's configuration, ``setting`` is a value of ``SETTINGS``, ``exchange`` and ``reached``
    are where the exchange listens and is reached, and ``out`` is a file for the bytes of updates
    and models of each round, and how many updates arrived in each.
    """
    app = folder / "app"
    app.mkdir()
    config = 'num-server-rounds = 1\nsetting = "plain"\nexchange = "-"\nreached = "-"'
    (app / "pyproject.toml").write_text(project("bytes", "bytes", config))
    (app / "bytes_client.py").write_text(CLIENT)
    (app / "bytes_server.py").write_text(SERVER)
    return app


@dataclass
class Measured:
    """Of one setting: of a run with one round, and of one with more, for all nodes together."""

    name: str
    one: Tally
    more: Tally
    payload: dict[str, list[int]]
    exchanged: tuple[int, int]
    seconds: float

    def update(self, way: int) -> int:
        """Return the bytes of updates (0) or models (1) of all rounds after the first."""
        return sum(sent[way] for number, sent in self.payload.items() if number != "1")


def measure(options: argparse.Namespace, folder: Path) -> tuple[Tally, list[Measured], int]:
    """Return what is moved while nothing runs, each setting, and bytes no call explains."""
    app = write_app(folder)
    with ExitStack() as stack:
        taps: list[HttpTap] = []
        proxies: list[LinkProxy] = []

        def through(number: int, address: str) -> str:
            taps.append(HttpTap(address))
            stack.callback(taps[-1].stop)
            proxies.append(stack.enter_context(LinkProxy(taps[-1].address)))
            return proxies[-1].address

        flower = Deployment(folder, stack, through=through)
        exchange = f"127.0.0.1:{free_port()}"
        beside = stack.enter_context(LinkProxy(exchange))
        time.sleep(10)
        before = _all(taps)
        time.sleep(options.idle)
        idle = _all(taps) - before
        measured = []
        for name in options.settings.split(";"):
            setting = SETTINGS[name]
            counts: list[Tally] = []
            seconds: list[float] = []
            crossed: list[tuple[int, int]] = []
            for rounds in (1, 1 + options.rounds):
                before, begun, passed = _all(taps), time.monotonic(), beside.total
                out = folder / "out.json"
                values: Any = {"num-server-rounds": rounds, "setting": setting, "out": str(out)}
                values |= {"exchange": exchange, "reached": beside.address}
                status = flower.run(app, values)
                if status != "finished:completed":
                    raise SystemExit(f"{name}: {status}\n{flower.logs()}")
                counts.append(_all(taps) - before)
                seconds.append(time.monotonic() - begun)
                total = beside.total
                crossed.append((total.up - passed.up, total.down - passed.down))
            payload = json.loads(out.read_text())["sent"]
            each = (seconds[1] - seconds[0]) / options.rounds
            after = crossed[1][0] - crossed[0][0], crossed[1][1] - crossed[0][1]
            measured.append(Measured(name, counts[0], counts[1], payload, after, each))
            print(f"{name}: {each:.1f} s a round", file=sys.stderr)
        told = sum(sum(tap.tally().size.values()) for tap in taps)
        counted = sum(proxy.total.up + proxy.total.down for proxy in proxies)
    return idle, measured, counted - told


def _all(taps: list[HttpTap]) -> Tally:
    whole = Tally()
    for tap in taps:
        tally = tap.tally()
        whole.size += tally.size
        whole.requests += tally.requests
    return whole


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="beyond the first")
    parser.add_argument("--idle", type=float, default=60.0, help="seconds without a run")
    parser.add_argument("--settings", default=";".join(SETTINGS), help="which, by ;")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        idle, measured, unexplained = measure(options, Path(folder))
    console = Console(width=150)
    minutes = CLIENTS * options.idle / 60
    up, down = (idle.sum("waiting", way) / minutes for way in ("up", "down"))
    calls = idle.requests["waiting"] / minutes
    console.print(f"Idle, a node and minute: {up:,.0f} B up, {down:,.0f} B down, {calls:.1f} calls")
    table = Table(box=SIMPLE, title="A node and round after the first")
    for column in COLUMNS:
        table.add_column(column, justify="left" if column in ("", "way") else "right")
    for each in measured:
        after = each.more - each.one
        share = CLIENTS * options.rounds
        for at, way in enumerate(("up", "down")):
            update, beside = each.update(at) / share, each.exchanged[at] / share
            head = after.size["model", way, "head"] / share
            body = after.size["model", way, "body"] / share
            waiting = after.sum("waiting", way) / share
            table.add_row(
                each.name if not at else "",
                f"{each.seconds:.1f}" if not at else "",
                way,
                f"{update:,.0f}" if each.payload else "in body",
                f"{beside - update:,.0f}" if beside else "-",
                f"{head:,.0f}",
                f"{body - (0 if beside else update):,.0f}",
                f"{waiting:,.0f}",
                f"{after.requests['model'] / share:.1f}" if not at else "",
                f"{beside + head + body + waiting:,.0f}",
            )
    console.print(table)
    for each in measured:
        up, down = (each.one.sum("run", way) / CLIENTS for way in ("up", "down"))
        console.print(f"{each.name}: a run begins with {up:,.0f} B up, {down:,.0f} B down a node")
    console.print(f"Bytes that the proxy counted and no call explains: {unexplained:,}")


if __name__ == "__main__":
    main()
