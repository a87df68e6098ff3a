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

from benchmarks.deployment_bytes import SETTINGS, write_app
from flowerpress.simulations.engines.flower import free_port
from flowerpress.simulations.linkproxy import LinkProxy
from tests.wire.deployment import CLIENTS, Deployment


def measure(setting: str, rate: float, folder: Path) -> tuple[int, float, str]:
    """Return how many updates arrived, after how many seconds, and Flower's status of the run."""
    app = write_app(folder)
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
    arrived = json.loads(out.read_text())["arrived"] if out.exists() else []
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
