"""A federation whose clients are processes that get SIGKILL; prints its ledger.

    python -m tests.flower.killed FOLDER FIRST_SEED SEEDS

Every message is answered by a process of its own, as a SuperNode does it: it opens the journal,
trains, writes its record, sends, and ends. It is killed by its schedule: at one of the calls with
which the journal changes the disk, or after it has sent. What it leaves is on disk and nowhere
else. The server begins anew from its checkpoint now and then.
"""

from __future__ import annotations

import json
import logging
import os
import random
import shutil
import signal
import sys
from collections import Counter
from pathlib import Path

import numpy as np
from flwr.app import Error, Message
from flwr.app.message.message import make_message
from flwr.common.constant import ErrorCode
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.recorddict_pb2 import RecordDict as ProtoRecordDict
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.ledger import RUN, Schedule, World, balance, eighths, served
from flowerpress.client.held import Held
from flowerpress.client.journal import Journal
from flowerpress.protos import restamped
from flowerpress.simulations.engines.grid import answer
from tests.store.faults import Faults

CLIENTS, ROUNDS = 3, 8
# More than a message takes: the calls of opening and of one record, and a few in which none is due.
CALLS = 45


class Killed(World):
    """Clients in processes of their own."""

    def __init__(self, seed: int, folder: Path) -> None:
        rng = random.Random(seed)
        numbers = range(1, ROUNDS + 1)
        server = {n: rng.choice(("dies in a round", "dies before its record")) for n in numbers}
        dies = {n: kind for n, kind in server.items() if rng.random() < 0.2}
        schedule = Schedule({}, dies, dict.fromkeys(numbers, 1))
        super().__init__(schedule, CLIENTS, "journal", folder)
        self.deaths: Counter[str] = Counter()
        self._rng = rng
        self._folder = folder / "devices"
        self._seen: Counter[int] = Counter()

    def handled(self, message: Message, kind: str) -> Message:
        """Fork, answer, and read what came of it."""
        node = message.metadata.dst_node_id
        at = self._rng.randint(1, CALLS) if self._rng.random() < 0.7 else 0
        own = self._stamped(message, message.metadata.message_id)
        reading, writing = os.pipe()
        process = os.fork()
        if not process:
            os.close(reading)
            self._answer(own, at, writing)
        os.close(writing)
        with os.fdopen(reading, "rb") as stream:
            text = stream.read()
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        self._look(node)
        if text.endswith(b"sent"):
            self.deaths["after sending" if status else "not at all"] += 1
            content = recorddict_from_proto(ProtoRecordDict.FromString(text[:-4]))
            stamps = restamped(
                message.metadata,
                message_id="",
                reply_to_message_id=message.metadata.message_id,
                src_node_id=node,
                dst_node_id=message.metadata.src_node_id,
            )
            return make_message(stamps, content)
        assert status == -signal.SIGKILL, status
        self.deaths["before sending"] += 1
        return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, "killed"), reply_to=message)

    def _answer(self, message: Message, at: int, writing: int) -> None:
        """Be the client's process."""
        try:
            context = self.context(message.metadata.dst_node_id)
            Faults(at, "kill", self._rng).install()
            reply = answer(self._app, message, context)
            assert not reply.has_error(), reply.error
            text = recorddict_to_proto(reply.content).SerializeToString()
            with os.fdopen(writing, "wb") as stream:
                stream.write(text + b"sent")
            if at > CALLS - 10:
                os.kill(os.getpid(), signal.SIGKILL)
            os._exit(0)
        finally:
            os._exit(1)

    def change(self, node: int) -> NDArray[np.float32]:
        """Return what a client trains in a round: the same again if it is asked again."""
        return eighths(self._number, node)

    def _note(self, node: int, held: Held) -> None:
        """In the client's process nothing is counted: what it counts dies with it."""

    def _look(self, node: int) -> None:
        """Count what was trained, by the record on disk."""
        held = self.held(node)
        if held is not None and held.sequence > self._seen[node]:
            assert held.sequence == self._seen[node] + 1
            self._seen[node] = held.sequence
            self.trained += eighths(held.round, node)

    def held(self, node: int) -> Held | None:
        """Return what is on a client's disk."""
        journal = Journal(self._folder / f"partition-{node - 2}", RUN, sync=False)
        journal.close()
        return journal.held


def main() -> None:
    """Run what the command line says."""
    folder, first, seeds = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    logging.disable(logging.CRITICAL)
    out = []
    for seed in range(first, first + seeds):
        work = folder / str(seed)
        world = Killed(seed, work)
        strategy, model = served(world, ROUNDS, work, evaluate=0.5)
        held = {node: world.held(node) for node in world.get_node_ids()}
        accounts = strategy.verdicts.accounts
        last = {node: account.sequence for node, account in accounts.items()}
        ledger = balance(world.trained, model, held, lambda n: last.get(n, 0), world.deaths)  # noqa: B023
        out.append({"error": ledger.error, "trained": ledger.trained, **world.deaths})
        shutil.rmtree(work)
    print(json.dumps(out))


if __name__ == "__main__":
    main()
