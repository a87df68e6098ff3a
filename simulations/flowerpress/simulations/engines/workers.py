"""The embedded engine on several processes: ``--workers N``.

A node belongs to one worker (its partition modulo N), so what a client keeps between rounds
stays where it is. Pushed instructions are worked on at once, but each worker is only so far
ahead of what was pulled; replies come back in the order in which they are asked for. Which
worker ran a client, and when, has no influence on its reply: results are the same for any N.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections import deque
from contextlib import suppress
from types import TracebackType
from typing import BinaryIO, cast

from flwr.app import Message

from flowerpress.simulations.engines.errors import EngineError
from flowerpress.simulations.engines.grid import FIRST_NODE, LocalGrid
from flowerpress.simulations.engines.pipe import Kind, from_bytes, read_frame, to_bytes, write_frame

__all__ = ["WorkerGrid"]

# How many replies of one worker may be in the making or waiting to be pulled. Two keep it busy
# while the server aggregates; more would only hold memory.
_AHEAD = 2


class _Worker:
    """One process, the instructions that wait for it, and the replies that wait for the engine."""

    def __init__(self, number: int, command: list[str]) -> None:
        self.number = number
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.inlet = cast(BinaryIO, self.process.stdin)
        self.outlet = cast(BinaryIO, self.process.stdout)
        self.queued: deque[Message] = deque()
        self.sent: deque[str] = deque()  # ids of the instructions that it has and not answered
        self.replies: dict[str, Message] = {}
        self.ended = False
        self.failure = ""
        self.reader: threading.Thread | None = None


class WorkerGrid(LocalGrid):
    """Flower's grid over ``workers`` processes; a context manager that ends them.

    ``factory`` is ``module:function``, ``argument`` the text with which each worker calls it to
    get the ``ClientApp``.
    """

    def __init__(
        self, factory: str, argument: str, clients: int, workers: int, run_id: int = 1
    ) -> None:
        super().__init__(clients, run_id)
        self._changed = threading.Condition()
        self._where: dict[str, _Worker] = {}
        command = [sys.executable, "-P", "-m", "flowerpress.simulations.engines.worker", factory]
        hello = json.dumps({"argument": argument, "clients": clients, "run_id": run_id}).encode()
        self._workers: list[_Worker] = []
        try:
            for number in range(min(workers, clients)):
                worker = _Worker(number, command)
                self._workers.append(worker)
                self._write(worker, Kind.HELLO, hello)
                worker.reader = threading.Thread(target=self._read, args=(worker,), daemon=True)
                worker.reader.start()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> WorkerGrid:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all workers; what they are doing is lost."""
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.wait()
            if worker.reader is not None:
                worker.reader.join()
            worker.outlet.close()
            with suppress(BrokenPipeError):  # what it did not read any more goes with it
                worker.inlet.close()

    def _accept(self, message: Message) -> None:
        worker = self._workers[(message.metadata.dst_node_id - FIRST_NODE) % len(self._workers)]
        self._where[message.metadata.message_id] = worker
        worker.queued.append(message)
        self._feed(worker)

    def _reply(self, message_id: str, patience: float | None) -> Message | None:
        worker = self._where[message_id]
        self._bring_forward(worker, message_id)
        with self._changed:
            self._changed.wait_for(lambda: message_id in worker.replies or worker.ended, patience)
            reply = worker.replies.pop(message_id, None)
            if reply is None:
                if worker.ended:
                    raise self._death(worker)
                return None
        del self._where[message_id]
        self._feed(worker)
        return reply

    def _feed(self, worker: _Worker) -> None:
        while worker.queued and len(worker.sent) + len(worker.replies) < _AHEAD:
            self._send(worker, worker.queued.popleft())

    def _bring_forward(self, worker: _Worker, message_id: str) -> None:
        """Send what is asked for, out of turn if the caller pulls in another order than it pushed.

        Without this, a worker that is as far ahead as it may be would wait for a pull that waits
        for it.
        """
        for message in worker.queued:
            if message.metadata.message_id == message_id:
                worker.queued.remove(message)
                self._send(worker, message)
                return

    def _send(self, worker: _Worker, message: Message) -> None:
        with self._changed:
            worker.sent.append(message.metadata.message_id)
        self._write(worker, Kind.CALL, to_bytes(message))

    def _write(self, worker: _Worker, kind: Kind, payload: bytes) -> None:
        # If it has died, its reader sees that too, and whoever waits for a reply is told.
        with suppress(BrokenPipeError):
            write_frame(worker.inlet, kind, payload)

    def _read(self, worker: _Worker) -> None:
        while (frame := read_frame(worker.outlet)) is not None:
            kind, payload = frame
            if kind is Kind.REPLY:
                reply = from_bytes(payload)
                with self._changed:
                    worker.replies[worker.sent.popleft()] = reply
                    self._changed.notify_all()
            elif kind is Kind.FAILED:
                worker.failure = payload.decode()
        worker.process.wait()
        with self._changed:
            worker.ended = True
            self._changed.notify_all()

    def _death(self, worker: _Worker) -> EngineError:
        code = worker.process.returncode
        if worker.failure:
            how = f"failed with {worker.failure}"
        elif code < 0:
            how = f"was killed by {signal.Signals(-code).name}"
            how += " (was memory short?)" if -code == signal.SIGKILL else ""
        else:
            how = f"ended with exit code {code}"
        return EngineError(
            f"worker {worker.number} of {len(self._workers)}, which runs every client whose number "
            f"leaves {worker.number} when divided by {len(self._workers)}, {how}; "
            "run with workers=1 to see the cause in one process"
        )
