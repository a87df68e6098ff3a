"""One round over thin links: which updates arrive in Flower's messages, and beside them.

python benchmarks/thin.py
python benchmarks/thin.py --rate 512000

A real SuperLink and two real SuperNodes on loopback, each behind a proxy with the rate of its link.
A model of 1.0 million parameters (4.04 MB) goes down as it is and comes back trained by noise: once
by stock Flower, once in ``Pressed`` with the carrier ``message``, once with ``grpc``. At the
default rate each of these takes ten minutes and more, nearly all of it waiting.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.deployment_bytes import CLIENT, SETTINGS
from flowerpress.simulations.engines.flower import free_port
from flowerpress.simulations.linkproxy import LinkProxy
from tests.wire.deployment import CLIENTS, Deployment
from tests.wire.third_party import project

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
    try:
        strategy.start(grid, arrays, num_rounds=1)
    finally:
        if exchange is not None:
            exchange.stop()
        Path(config["out"]).write_text(json.dumps(arrived))
"""


def measure(setting: str, rate: float, folder: Path) -> tuple[int, float, str]:
    """Return how many updates arrived, after how many seconds, and Flower's status of the run."""
    app = folder / "app"
    app.mkdir()
    config = 'num-server-rounds = 1\nsetting = "plain"\nexchange = "-"\nreached = "-"'
    (app / "pyproject.toml").write_text(project("bytes", "bytes", config))
    (app / "bytes_client.py").write_text(CLIENT)
    (app / "bytes_server.py").write_text(SERVER)
    out = folder / "out.json"
    with ExitStack() as stack:

        def through(_: int, address: str) -> str:
            return stack.enter_context(LinkProxy(address, up=rate, down=rate)).address

        flower = Deployment(folder, stack, through=through)
        exchange = f"127.0.0.1:{free_port()}"
        # Both nodes share it, so that each has half.
        beside = LinkProxy(exchange, up=CLIENTS * rate, down=CLIENTS * rate)
        stack.enter_context(beside)
        values: Any = {"setting": setting, "out": str(out)}
        values |= {"exchange": exchange, "reached": beside.address}
        began = time.monotonic()
        status = flower.run(app, values, seconds=3 * 3600)
        seconds = time.monotonic() - began
    arrived = json.loads(out.read_text()) if out.exists() else []
    return sum(arrived), seconds, status


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__
    )
    parser.add_argument("--rate", type=float, default=128_000, help="bits a second each way")
    names = ("stock FedAvg", "Pressed, none, message", "Pressed, none, grpc")
    parser.add_argument("--settings", default=";".join(names), help="which, by ;")
    args = parser.parse_args()
    print(f"{'':<26}{'updates':>8}{'seconds':>9}  status   ({args.rate / 1000:g} kbit/s)")
    for name in args.settings.split(";"):
        with tempfile.TemporaryDirectory() as folder:
            arrived, seconds, status = measure(SETTINGS[name], args.rate, Path(folder))
        print(f"{name:<26}{arrived:>5}/{CLIENTS}{seconds:>10.0f}  {status}", flush=True)


if __name__ == "__main__":
    main()
