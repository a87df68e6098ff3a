"""What it costs to be able to go on: milliseconds a round, and bytes on disk.

python benchmarks/checkpoints.py --tasks digits mnist --clients 10 --rounds 6

Medians over the rounds, of processor time and of time on the clock: of the server's commit, with
and without waiting for the disk, of writing the states of all clients, and of a whole round beside
them.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flwr.app import Context
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from flowerpress.protos.store import Snapshot, Store
from flowerpress.server.checkpoint import Keeper
from flowerpress.server.rounds import Progress
from flowerpress.simulations import client_states
from flowerpress.simulations.config import SimulationConfig
from flowerpress.simulations.engines import run
from flowerpress.simulations.human import human_bytes
from flowerpress.simulations.quiet import hush_flower
from flowerpress.simulations.record import read_run
from flowerpress.simulations.resuming import clients_folder, server_folder


@dataclass
class Times:
    """Seconds of the processor and on the clock."""

    processor: float = 0.0
    clock: float = 0.0

    def timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``call``, which adds here what it takes."""

        def wrapped(*args: Any, **options: Any) -> Any:
            processor, clock = time.process_time(), time.perf_counter()
            try:
                return call(*args, **options)
            finally:
                self.processor += time.process_time() - processor
                self.clock += time.perf_counter() - clock

        return wrapped

    def __str__(self) -> str:
        return f"{1000 * self.processor:.1f} / {1000 * self.clock:.1f}"


def median(times: list[Times]) -> Times:
    """Return the medians of both."""
    return Times(
        statistics.median(each.processor for each in times),
        statistics.median(each.clock for each in times),
    )


def measure(task: str, clients: int, rounds: int, uplink: str, data: Path | None) -> list[str]:
    """Run a task and return a row of the table."""
    found: dict[str, list[Times]] = defaultdict(list)
    sizes: dict[str, int] = {}
    commit, keep, into = Keeper.commit, client_states._keep, Store.commit
    clients_time = Times()

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        synced = Store(Path(folder) / "synced")

        def committed(self: Store, snapshot: Snapshot) -> int:
            times = Times()
            times.timed(synced_commit)(snapshot)
            found["synced"].append(times)
            return into(self, snapshot)

        def synced_commit(snapshot: Snapshot) -> None:
            into(synced, snapshot)

        def kept(self: Keeper, progress: Progress) -> None:
            nonlocal clients_time
            waited = len(found["synced"])
            times = Times()
            times.timed(commit)(self, progress)
            for extra in found["synced"][waited:]:
                times.processor -= extra.processor
                times.clock -= extra.clock
            found["server"].append(times)
            found["clients"].append(clients_time)
            clients_time = Times()
            for name, place in (("server", server_folder(out)), ("clients", clients_folder(out))):
                files = [path for path in place.rglob("*") if path.is_file()]
                sizes[name] = sum(path.stat().st_size for path in files)

        def stated(context: Context, folder: Path, server_round: int) -> None:
            clients_time.timed(keep)(context, folder, server_round)

        Keeper.commit = kept  # type: ignore[method-assign]
        Store.commit = committed  # type: ignore[method-assign]
        client_states._keep = stated
        try:
            settings = {"task": task, "clients": clients, "rounds": rounds, "uplink": uplink}
            config = SimulationConfig.model_validate({**settings, "data": data, "out": out})
            run(config)
        finally:
            Keeper.commit, Store.commit = commit, into  # type: ignore[method-assign]
            client_states._keep = keep
            synced.close()
        records = read_run(out).records[1:]
    whole = statistics.median(record.seconds for record in records)
    raw = records[0].raw_bytes_up // clients
    rounds_of = {name: median(times[1:]) for name, times in found.items()}
    return [
        task,
        human_bytes(raw),
        f"{1000 * whole:.0f}",
        str(rounds_of["server"]),
        str(rounds_of["clients"]),
        str(rounds_of["synced"]),
        human_bytes(sizes["server"]),
        human_bytes(sizes["clients"]),
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--tasks", nargs="+", default=["digits", "mnist"])
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--uplink", default="stc")
    parser.add_argument("--data", type=Path)
    args = parser.parse_args()
    hush_flower()
    heads = ("task", "model", "round", "server", "clients", "server, synced")
    table = Table(*heads, "server's disk", "clients' disk", box=SIMPLE)
    for task in args.tasks:
        table.add_row(*measure(task, args.clients, args.rounds, args.uplink, args.data))
    console = Console(width=120)
    console.print("milliseconds a round; processor / clock", highlight=False)
    console.print(table)


if __name__ == "__main__":
    main()
