"""How much of what clients trained is lost or counted twice, where everything fails now and then.

python benchmarks/ledger.py                               the table of docs/journal.md
python benchmarks/ledger.py --schedules 1000              short runs, many faults: journals only

Clients train, code 1% of each change and keep the rest as a residual; the server adds up what
arrives. The client mod, its journal, the strategy with its checks and its checkpoints are the
package's own; clients, server and what is between them fail by a schedule that a seed draws.
Changes are multiples of 1/8, so that every sum is exact, and none is negative, so that losses do
not cancel. Whatever is not in the model, in a residual, or on its way at the end is missing;
whatever is there twice is too much. The error is the sum of both over what was trained.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
from numpy.typing import NDArray
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import track
from rich.table import Table

import flowerpress.client.mod as client_mod
from flowerpress.client import press
from flowerpress.client.held import Held
from flowerpress.client.journal import Journal, Keeper, keeper
from flowerpress.compression import Manifest, decode_frames
from flowerpress.protos import Kind, unpack
from flowerpress.protos.store import Snapshot
from flowerpress.server import Pressed
from flowerpress.server.checkpoint import Checkpoint
from flowerpress.simulations.engines.grid import FIRST_NODE, answer, node_context, server_identity
from flowerpress.simulations.engines.inline import InlineGrid

__all__ = [
    "METHODS",
    "Ledger",
    "Schedule",
    "Summed",
    "World",
    "balance",
    "drawn",
    "eighths",
    "played",
    "served",
]

RUN = 11
SIZE = 1000
CODEC = "topk(density=0.01)"

# What may happen to a client and its messages in a round, and to the server.
BEFORE_RECORD = "dies after training"
AFTER_RECORD = "dies before sending"
AFTER_SENDING = "dies after sending"
CLIENT = (
    BEFORE_RECORD,
    AFTER_RECORD,
    AFTER_SENDING,
    "reply lost",
    "reply late",
    "reply twice",
    "instruction lost",
    "instruction twice",
)
SERVER = ("dies in a round", "dies before its record", "dies after its record")

METHODS = {
    "memory": "residual in memory only",
    "before": "saved before the acknowledgement",
    "after": "saved after the acknowledgement",
    "journal": "journal",
}


class DiedError(Exception):
    """The process of a client or of the server ended here."""


@dataclass(frozen=True)
class Schedule:
    """Which fault happens to which client in which round, and to the server in which round.

    A server that dies within a round does so at its ``places``-th reply.
    """

    clients: Mapping[tuple[int, int], str]
    server: Mapping[int, str]
    places: Mapping[int, int]


def drawn(seed: int, clients: int, rounds: int, probability: float) -> Schedule:
    """Draw a schedule: each client in each round, and the server, fails with ``probability``."""
    rng = np.random.default_rng([seed, 1])
    numbers = range(1, rounds + 1)
    return Schedule(
        {
            (number, FIRST_NODE + client): str(rng.choice(CLIENT))
            for number in numbers
            for client in range(clients)
            if rng.random() < probability
        },
        {number: str(rng.choice(SERVER)) for number in numbers if rng.random() < probability},
        {number: int(rng.integers(clients)) for number in numbers},
    )


class Summed(FedAvg):
    """Adds up all changes instead of averaging them, which would round.

    Args:
        evaluate: the share of clients that are asked to evaluate in each round.
    """

    def __init__(self, evaluate: float = 0.0) -> None:
        super().__init__(
            fraction_evaluate=evaluate,
            min_train_nodes=1,
            min_evaluate_nodes=1,
            min_available_nodes=1,
        )
        self.model = np.zeros(SIZE, np.float32)
        self.watch: Callable[[int], None] = lambda number: None

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: Any, grid: Grid
    ) -> Iterable[Message]:
        """Remember the model."""
        self.watch(server_round)
        self.model = arrays["w"].numpy()
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Return the model plus all changes from it."""
        found = [r.content.array_records["arrays"]["w"] for r in replies if r.has_content()]
        if not found:
            return None, None
        total = self.model + sum(array.numpy() - self.model for array in found)
        return ArrayRecord({"w": Array(np.asarray(total, np.float32))}), MetricRecord()

    def state(self) -> Snapshot:
        """Nothing outlasts a round."""
        return Snapshot()

    def restore(self, snapshot: Snapshot) -> None:
        """Nothing is to be restored."""


def eighths(*seed: int) -> NDArray[np.float32]:
    """Return a change: multiples of 1/8 below 1, none negative."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 8, SIZE).astype(np.float32) / np.float32(8)


class World(InlineGrid):
    """Clients in this process, to which a schedule happens.

    Args:
        schedule: what happens. Each fault happens once, also where a round is repeated.
        clients: how many.
        method: one of ``METHODS``.
        folder: of the journals.

    Attributes:
        trained: the sum of all changes of which a client has a record, of any kind.
        happened: how often which fault was met.
    """

    def __init__(self, schedule: Schedule, clients: int, method: str, folder: Path) -> None:
        journal = folder / "devices" if method == "journal" else None
        app = ClientApp(mods=[press(journal=journal)])
        super().__init__(app, clients)
        self.trained = np.zeros(SIZE, np.float64)
        self.happened: Counter[str] = Counter()
        self.method = method
        self.disk: dict[int, Held] = {}
        self._staged: dict[int, Held] = {}
        self._journal = journal
        self._faults = dict(schedule.clients)
        self._server = dict(schedule.server)
        self._places = schedule.places
        self._late: dict[int, Message] = {}
        self._recorded: Counter[int] = Counter()
        self._dying: str = ""
        self._last = np.zeros(SIZE, np.float32)
        self._number = self._trainings = self._pulled = 0

        @app.train()
        def train(message: Message, context: Context) -> Message:
            self._trainings += 1
            self._last = self.change(context.node_id)
            if self._dying == BEFORE_RECORD:
                raise DiedError(self._dying)
            w = message.content.array_records["arrays"]["w"].numpy() + self._last
            metrics = MetricRecord({"num-examples": 1})
            content = RecordDict({"arrays": ArrayRecord({"w": Array(w)}), "metrics": metrics})
            return Message(content, reply_to=message)

        @app.evaluate()
        def evaluate(message: Message, context: Context) -> Message:
            content = RecordDict({"metrics": MetricRecord({"num-examples": 1})})
            return Message(content, reply_to=message)

    # The server

    def begins(self, number: int) -> None:
        """Begin a round: the moment after the record of the round before."""
        self._waiting.clear()
        self._pulled = 0
        self._number = number
        self._server_dies(number - 1, SERVER[2])

    def judges(self, number: int, arrays: ArrayRecord) -> None:
        """Look at the model of a round: the moment before its record."""
        self._server_dies(number, SERVER[1])

    def _server_dies(self, number: int, kind: str) -> None:
        if self._server.get(number) == kind:
            del self._server[number]
            self.happened[f"server {kind}"] += 1
            raise DiedError(kind)

    # Clients and what is between

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return replies: none, one or two for each instruction."""
        for message_id in message_ids:
            if self._pulled == self._places.get(self._number):
                self._server_dies(self._number, SERVER[0])
            self._pulled += 1
            for reply in self._crossed(self._waiting.pop(message_id)):
                yield self._stamped(reply, f"reply-{message_id}")

    def _crossed(self, message: Message) -> list[Message]:
        node = message.metadata.dst_node_id
        train = message.metadata.message_type == "train"
        kind = self._faults.pop((self._number, node), "") if train else ""
        self.happened[kind] += bool(kind)
        lost = Message(Error(ErrorCode.NODE_UNAVAILABLE, "gone"), reply_to=message)
        if kind == "instruction lost":
            return [lost]
        late = [self._late.pop(node)] if train and node in self._late else []
        reply = self.handled(message, kind)
        if kind == "instruction twice":
            reply = self.handled(message, "")
        if reply.has_error():
            return [*late, reply]
        if kind == AFTER_SENDING:
            self._dies(node)
        elif node in self._staged:
            self.disk[node] = self._staged.pop(node)
        if kind == "reply late":
            self._late[node] = reply
        if kind in ("reply late", "reply lost"):
            return [*late, lost]
        return [*late, reply, reply] if kind == "reply twice" else [*late, reply]

    def handled(self, message: Message, kind: str) -> Message:
        """Let a client answer a copy of an instruction; it may die of ``kind`` in between."""
        node = message.metadata.dst_node_id
        self._dying = kind
        own = self._stamped(message, message.metadata.message_id)
        reply = answer(self._app, own, self.context(node))
        self._dying = ""
        if reply.has_error():
            self._dies(node)
        return reply

    def change(self, node: int) -> NDArray[np.float32]:
        """Return what a client's training changes now."""
        return eighths(self._trainings, node)

    def context(self, node: int) -> Context:
        """Return what Flower keeps for a node."""
        if node not in self._contexts:
            self._contexts[node] = node_context(node, len(self._node_ids), self._run.run_id)
        return self._contexts[node]

    def _dies(self, node: int) -> None:
        self._contexts.pop(node, None)
        self._staged.pop(node, None)

    @contextmanager
    def keeping(self, folder: Path | None, context: Context, run: int) -> Iterator[Keeper]:
        """Open what a client keeps, by this world's method; stands in for ``press()``'s own."""
        if self._journal is not None:
            journal = Journal(self._journal / str(context.node_id), run, sync=False)
            opened: AbstractContextManager[Keeper] = _closing(journal)
        elif self.method == "memory":
            opened = keeper(None, context, run)
        else:
            opened = _closing(_Saved(self, context.node_id))
        with opened as kept:
            save = kept.save

            def saved(held: Held) -> None:
                save(held)
                self._note(context.node_id, held)

            setattr(kept, "save", saved)  # noqa: B010 - a method of this object alone
            yield kept

    def _note(self, node: int, held: Held) -> None:
        if held.sequence > self._recorded[node]:
            self._recorded[node] = held.sequence
            self.trained += self._last
            if self._dying == AFTER_RECORD:
                raise DiedError(self._dying)

    def stage(self, node: int, held: Held) -> None:
        """Keep what is to be saved once the reply is on its way."""
        self._staged[node] = held

    def held(self, node: int) -> Held | None:
        """Return what a client holds at the end."""
        with self.keeping(None, self.context(node), RUN) as kept:
            return kept.held


class _Saved:
    """A residual on disk without the update: before the acknowledgement, or after it."""

    def __init__(self, world: World, node: int) -> None:
        self.held = world.disk.get(node)
        self._world = world
        self._node = node

    def save(self, held: Held) -> None:
        """Keep the residual, for an update that is sure to arrive."""
        held = replace(held, pending=b"")
        if self._world.method == "before":
            self._world.disk[self._node] = held
        else:
            self._world.stage(self._node, held)
        self.held = held

    def close(self) -> None:
        """Nothing is open."""


@contextmanager
def _closing(kept: Any) -> Iterator[Keeper]:
    try:
        yield kept
    finally:
        kept.close()


@dataclass(frozen=True)
class Ledger:
    """What became of what was trained, as sums of absolute values.

    ``missing`` is in no model, residual or update on its way; ``doubled`` is there once too often.
    """

    trained: float
    missing: float
    doubled: float
    happened: Mapping[str, int]

    @property
    def error(self) -> float:
        """The relative mass error."""
        return (self.missing + self.doubled) / self.trained


def balance(
    trained: NDArray[np.float64],
    model: NDArray[Any],
    clients: Mapping[int, Held | None],
    settled: Callable[[int], int],
    happened: Mapping[str, int],
) -> Ledger:
    """Compare what was trained with where it is now.

    Args:
        trained: the sum of all changes.
        model: the server's, which began at zero.
        clients: what each holds.
        settled: the sequence number of a client's last update that the server has settled.
        happened: passed on.
    """
    manifest = Manifest.of({"w": np.zeros(SIZE, np.float32)})
    found = model.astype(np.float64)
    for client, held in clients.items():
        if held is None:
            continue
        if "w" in held.residuals:
            found += held.residuals["w"]
        if held.pending and settled(client) < held.sequence:
            update = unpack(held.pending, manifest)
            assert update.kind is Kind.DELTA
            ((_, decoded),) = decode_frames(manifest, update.frames)
            decoded.add_to(found)
    difference = trained - found
    return Ledger(
        float(trained.sum()),
        float(np.maximum(difference, 0).sum()),
        float(np.maximum(-difference, 0).sum()),
        happened,
    )


def played(
    schedule: Schedule, clients: int, rounds: int, method: str, folder: Path, evaluate: float = 0.0
) -> Ledger:
    """Run a federation through a schedule; return its ledger.

    Args:
        schedule: what happens.
        clients: how many.
        rounds: how many.
        method: one of ``METHODS``.
        folder: for journals and checkpoints.
        evaluate: the share of clients that evaluate in each round.
    """
    world = World(schedule, clients, method, folder)
    with patch.object(client_mod, "keeper", world.keeping):
        strategy, model = served(world, rounds, folder, evaluate)
    held = {node: world.held(node) for node in world.get_node_ids()}
    watermarks = strategy.verdicts.accounts
    return balance(
        world.trained,
        model,
        held,
        lambda node: watermarks[node].sequence if node in watermarks else 0,
        world.happened,
    )


def served(
    world: World, rounds: int, folder: Path, evaluate: float
) -> tuple[Pressed, NDArray[np.float32]]:
    """Run the server to its end, and begin it anew from its checkpoint whenever it dies."""
    first = ArrayRecord({"w": Array(np.zeros(SIZE, np.float32))})
    while True:
        inner = Summed(evaluate)
        inner.watch = world.begins
        strategy = Pressed(
            inner,
            uplink=CODEC,
            downlink="none",
            seed=0,
            run_id=RUN,
            checkpoint=Checkpoint(folder / "server", sync=False),
        )

        def judge(number: int, arrays: ArrayRecord) -> MetricRecord | None:
            world.judges(number, arrays)
            return None

        try:
            with server_identity(world.run.run_id):
                result = strategy.start(world, first, num_rounds=rounds, evaluate_fn=judge)
        except DiedError:
            continue
        return strategy, np.asarray(result.arrays["w"].numpy())


def _table(console: Console, clients: int, rounds: int, seeds: int, folder: Path) -> None:
    probabilities = (0.01, 0.05)
    table = Table(box=SIMPLE, title=f"{clients} clients x {rounds} rounds, {seeds} schedules each")
    table.add_column("state of a client")
    for probability in probabilities:
        table.add_column(f"faults {probability:.0%}: error", justify="right")
        table.add_column("missing", justify="right")
        table.add_column("twice", justify="right")
    for method, name in METHODS.items():
        cells = []
        for probability in probabilities:
            ledgers = []
            for seed in range(1, seeds + 1):
                work = Path(tempfile.mkdtemp(dir=folder))
                schedule = drawn(seed, clients, rounds, probability)
                ledgers.append(played(schedule, clients, rounds, method, work))
                shutil.rmtree(work)
            trained = sum(each.trained for each in ledgers)
            missing = sum(each.missing for each in ledgers) / trained
            doubled = sum(each.doubled for each in ledgers) / trained
            cells += [f"{missing + doubled:.3g}", f"{missing:.3g}", f"{doubled:.3g}"]
        table.add_row(name, *cells)
        console.print(f"{name}: {' '.join(cells)}", style="dim")
    console.print(table)


def _schedules(console: Console, count: int, folder: Path) -> int:
    worst, happened = 0.0, Counter[str]()
    for seed in track(range(1, count + 1), "schedules", console=console):
        work = Path(tempfile.mkdtemp(dir=folder))
        ledger = played(drawn(seed, 3, 6, 0.2), 3, 6, "journal", work, evaluate=float(seed % 2))
        shutil.rmtree(work)
        worst = max(worst, ledger.error)
        happened.update(ledger.happened)
    for name, number in sorted(happened.items()):
        console.print(f"{number:7d}  {name}", highlight=False) if name else None
    console.print(f"{count} schedules, largest relative mass error {worst:g}", highlight=False)
    return int(worst > 1e-12)


def main() -> int:
    """Read the command line, and measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=1, help="schedules of each cell")
    parser.add_argument("--schedules", type=int, help="so many short runs with journals instead")
    parser.add_argument("--folder", type=Path, help="of journals; default: in memory")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    memory = Path("/dev/shm")
    folder = options.folder or (memory if memory.is_dir() else None)
    console = Console()
    with tempfile.TemporaryDirectory(dir=folder) as work:
        if options.schedules:
            return _schedules(console, options.schedules, Path(work))
        _table(console, options.clients, options.rounds, options.seeds, Path(work))
    return 0


if __name__ == "__main__":
    sys.exit(main())
