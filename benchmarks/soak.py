"""A long run: is memory flat on both sides, and does every update count?

python benchmarks/soak.py                    # 500 rounds, 10 client processes, at full speed
python benchmarks/soak.py --kind deployment  # by flowerpress server and client: hours on two cores

Client processes train on digits and exchange models and updates with the server over the gRPC
exchange on loopback. ``processes`` drives them without Flower's polling; ``deployment`` is what
docs/deployment.md describes, with TLS and node keys. After every round the resident memory of
either side is noted. What it has more in the last fifth of the rounds than in the second is growth;
the first fifth fills caches.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from flowerpress.server.exchange import ExchangeService
from flowerpress.simulations.app import Surroundings, serve
from flowerpress.simulations.config import SimulationConfig
from flowerpress.simulations.engines.flower import free_port
from flowerpress.simulations.engines.grid import server_identity
from flowerpress.simulations.engines.workers import WorkerGrid
from flowerpress.simulations.quiet import hush_flower
from flowerpress.simulations.record import RoundRecord, RunReader

KINDS = ("processes", "deployment")
_FACTORY = "flowerpress.simulations.app:client_app_from_json"
_PAGE = os.sysconf("SC_PAGE_SIZE")
_POLL = 0.5


@dataclass(frozen=True)
class Soak:
    """What came of it. Memory in bytes: of the server's side, and of all clients' together."""

    kind: str
    rounds: int
    clients: int
    lost: int
    server: tuple[int, ...]
    devices: tuple[int, ...]

    def growth(self, memory: tuple[int, ...]) -> float:
        """Return by how much the last fifth is above the second, as a fraction."""
        fifth = max(1, len(memory) // 5)
        return median(memory[-fifth:]) / median(memory[fifth : 2 * fifth]) - 1


def soak(kind: str, rounds: int, clients: int, folder: Path) -> Soak:
    """Run it; ``folder`` gets the run, and must be new."""
    config = SimulationConfig(
        clients=clients, rounds=rounds, uplink="stc", evaluate_every=50, out=folder / "run"
    )
    server: list[int] = []
    devices: list[int] = []
    lost = 0

    def note(record: RoundRecord, sides: tuple[list[int], list[int]]) -> None:
        nonlocal lost
        lost += len(record.left_out) + clients * bool(record.round) - record.clients
        server.append(sum(map(resident, sides[0])))
        devices.append(sum(map(resident, sides[1])))

    run = _processes if kind == "processes" else _deployment
    run(config, folder, note)
    if len(server) != rounds + 1:
        raise RuntimeError(f"{rounds} rounds were to run, and {len(server) - 1} did")
    return Soak(kind, rounds, clients, lost, tuple(server), tuple(devices))


Note = Callable[[RoundRecord, tuple[list[int], list[int]]], None]


def _processes(config: SimulationConfig, folder: Path, note: Note) -> None:
    assert config.clients is not None
    own = os.getpid()
    with (
        ExchangeService("127.0.0.1:0") as exchange,
        WorkerGrid(_FACTORY, config.to_json(), config.clients, config.clients) as grid,
        server_identity(grid.run.run_id),
    ):
        serve(
            config,
            grid,
            lambda record: note(record, ([own], descendants(own))),
            Surroundings(options={"carrier": exchange}),
        )


def _deployment(config: SimulationConfig, folder: Path, note: Note) -> None:
    assert config.clients is not None
    assert config.out is not None
    port, exchange, certs = free_port(), free_port(), folder / "certs"
    made = ["certs", "make", certs, "--host", "localhost", "--devices", config.clients]
    with _flowerpress(folder, *made) as process:
        process.wait()
    settings = folder / "settings.toml"
    settings.write_text(
        f'uplink = "{config.uplink}"\nevaluate_every = {config.evaluate_every}\n', encoding="utf-8"
    )
    with ExitStack() as stack:
        words = ["server", "--certs", certs, "--state", folder / "server", "--config", settings]
        words += ["--devices", config.clients, "--rounds", config.rounds, "--out", config.out]
        words += ["--port", port, "--exchange-port", exchange]
        server = stack.enter_context(_flowerpress(folder, *words))
        clients = []
        for number in range(config.clients):
            words = ["client", "--server", f"localhost:{port}", "--ca", certs / "ca.pem"]
            words += ["--key", certs / "nodes" / f"device-{number}.key"]
            words += ["--state", folder / f"device-{number}"]
            words += ["--partition", f"{number}/{config.clients}"]
            clients.append(stack.enter_context(_flowerpress(folder, *words)))
        reader = RunReader(config.out)
        running = True
        while running:
            try:
                server.wait(_POLL)
                running = False
            except subprocess.TimeoutExpired:
                pass
            if reader.path.exists():
                for record in reader.poll():
                    sides = [
                        [pid for root in roots for pid in [root.pid, *lasting(root.pid)]]
                        for roots in ([server], clients)
                    ]
                    note(record, (sides[0], sides[1]))


@contextmanager
def _flowerpress(folder: Path, *words: object) -> Iterator[subprocess.Popen[bytes]]:
    script = "from flowerpress.simulations.cli import main; main()"
    with (folder / "log.txt").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", script, *map(str, words)], stdout=log, stderr=log
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def resident(pid: int) -> int:
    """Return the resident memory of a process in bytes; 0 if it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0


def descendants(pid: int) -> list[int]:
    """Return all processes below one."""
    found = []
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            found += [int(child), *descendants(int(child))]
    return found


def lasting(pid: int) -> list[int]:
    """Return the descendants that are there all the time, without those that handle one message."""
    found = []
    for child in descendants(pid):
        try:
            command = Path(f"/proc/{child}/cmdline").read_bytes()
        except OSError:
            continue
        if b"flwr-clientapp" not in command:
            found.append(child)
    return found


def main() -> None:
    """Run as the command line says; status 1 where an update was lost or memory grew."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kind", choices=KINDS, default=KINDS[0])
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--most", type=float, default=0.05, help="growth that is allowed")
    parser.add_argument("--out", type=Path, help="file for the numbers, JSON")
    asked = parser.parse_args()
    hush_flower()
    with tempfile.TemporaryDirectory(prefix="flowerpress-soak-") as folder:
        found = soak(asked.kind, asked.rounds, asked.clients, Path(folder))
    if asked.out is not None:
        asked.out.write_text(json.dumps(asdict(found)) + "\n", encoding="utf-8")
    sides = {"server": found.server, f"{found.clients} clients": found.devices}
    grown = {name: found.growth(memory) for name, memory in sides.items()}
    print(
        f"{found.kind}: {found.rounds} rounds, {found.clients} clients, {found.lost} updates lost"
    )
    for name, memory in sides.items():
        mib = [memory[at] / 2**20 for at in (0, len(memory) // 2, -1)]
        print(f"{name}: {mib[0]:.0f}, {mib[1]:.0f}, {mib[2]:.0f} MiB; {grown[name]:+.1%}")
    sys.exit(bool(found.lost) or max(grown.values()) > asked.most)


if __name__ == "__main__":
    main()
