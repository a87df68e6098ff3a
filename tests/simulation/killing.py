"""A process whose children run simulations and end themselves with SIGKILL at a given point.

``python killing.py`` reads jobs from its standard input, a line of JSON each, and answers each with
a line: ``{"config": text, "kill": [point, nth] or null}`` becomes ``{"status": n, "passed": {point:
times}}``. A child begins the run in the configuration's folder, or goes on with it. What all of
them import is imported once, so that a child costs what its rounds cost.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flowerpress.protos.store import generations
from flowerpress.protos.store.disk import write_file
from flowerpress.protos.store.index import Index
from flowerpress.server import Pressed
from flowerpress.simulations import app, client_states
from flowerpress.simulations.config import SimulationConfig
from flowerpress.simulations.engines import run
from flowerpress.simulations.loaded import load
from flowerpress.simulations.quiet import hush_flower
from flowerpress.simulations.record import RoundRecord, RunWriter, is_finished
from flowerpress.simulations.resuming import can_go_on

# Where a run can end. "half": a part of the bytes are written then.
POINTS = (
    "round: before the aggregate",
    "round: after the aggregate",
    "client: before its state",
    "client: half of its state",
    "client: after its state",
    "record: before the line",
    "record: half of the line",
    "record: after the line",
    "state: before the file",
    "state: half of the file",
    "state: after the file",
    "state: before the index",
    "state: before the index is committed",
    "state: after the index",
    "state: before old files go",
    "state: after old files are gone",
    "end: before the model",
    "end: before the summary",
    "end: after the summary",
)


class Killer:
    """Counts how often each point was passed, and ends the process at one of them."""

    def __init__(self, kill: list[Any] | None) -> None:
        self.passed: Counter[str] = Counter()
        self._kill = tuple(kill) if kill else None

    def at(self, point: str) -> None:
        self.passed[point] += 1
        if self._kill == (point, self.passed[point]):
            os.kill(os.getpid(), signal.SIGKILL)

    def is_next(self, point: str) -> bool:
        """Whether the process is to end when it passes this point for the next time."""
        return self._kill == (point, self.passed[point] + 1)

    def around(self, owner: Any, name: str, before: str = "", after: str = "") -> None:
        real: Callable[..., Any] = getattr(owner, name)

        def wrapped(*args: Any, **options: Any) -> Any:
            if before:
                self.at(before)
            result = real(*args, **options)
            if after:
                self.at(after)
            return result

        setattr(owner, name, wrapped)

    def arm(self) -> None:
        """Put the points into what this process has imported."""

        def written(path: Path, parts: Any, *, sync: bool) -> None:
            self.at("state: before the file")
            parts = list(parts)
            if self.is_next("state: half of the file"):
                body = b"".join(parts)
                path.write_bytes(body[: len(body) // 2])
            self.at("state: half of the file")
            write_file(path, parts, sync=sync)
            self.at("state: after the file")

        generations.write_file = written  # type: ignore[attr-defined]
        killer, replace = self, Index.replace

        class Watched:
            """A connection that is about to commit now and then."""

            def __init__(self, connection: sqlite3.Connection) -> None:
                self._inside = connection

            def execute(self, text: str) -> sqlite3.Cursor:
                if text == "COMMIT":
                    killer.at("state: before the index is committed")
                return self._inside.execute(text)

            def __getattr__(self, name: str) -> Any:
                return getattr(self._inside, name)

        def replaced(self: Index, rows: Any) -> None:
            killer.at("state: before the index")
            own: Any = self
            if not isinstance(own._connection, Watched):
                own._connection = Watched(own._connection)
            replace(self, rows)
            killer.at("state: after the index")

        Index.replace = replaced  # type: ignore[method-assign]
        before, after = "state: before old files go", "state: after old files are gone"
        self.around(generations.Store, "_sweep", before, after)
        self._arm_record()
        self._arm_client()
        self.around(
            Pressed,
            "aggregate_train",
            "round: before the aggregate",
            "round: after the aggregate",
        )
        self.around(app, "save_model", "end: before the model")
        self.around(RunWriter, "finish", "end: before the summary", "end: after the summary")

    def _arm_record(self) -> None:
        killer, append = self, RunWriter.append

        def appended(self: RunWriter, record: RoundRecord) -> None:
            killer.at("record: before the line")
            if killer.is_next("record: half of the line"):
                line = json.dumps(record.to_json())
                self._file.write(line[: len(line) // 2])
                self._file.flush()
            killer.at("record: half of the line")
            append(self, record)
            killer.at("record: after the line")

        RunWriter.append = appended  # type: ignore[method-assign]

    def _arm_client(self) -> None:
        killer, keep = self, client_states._keep

        def kept(context: Any, folder: Path, server_round: int) -> None:
            killer.at("client: before its state")
            if killer.is_next("client: half of its state"):
                folder.mkdir(parents=True, exist_ok=True)
                (folder / f".round-{server_round}.{os.getpid()}").write_bytes(b"half")
            killer.at("client: half of its state")
            keep(context, folder, server_round)
            killer.at("client: after its state")

        client_states._keep = kept


def work(job: dict[str, Any], answer: int) -> None:
    killer = Killer(job["kill"])
    killer.arm()
    config = SimulationConfig.from_json(job["config"])
    assert config.out is not None
    if not is_finished(config.out):
        run(config, resume=can_go_on(config.out))
    os.write(answer, json.dumps(killer.passed).encode())


def main() -> None:
    hush_flower()
    for line in sys.stdin:
        job = json.loads(line)
        load(SimulationConfig.from_json(job["config"]))  # the data, for all children
        source, sink = os.pipe()
        child = os.fork()
        if not child:
            code = 1
            try:
                os.close(source)
                work(job, sink)
                code = 0
            except BaseException:  # noqa: BLE001 - it is shown, and the status says so
                traceback.print_exc()
            os._exit(code)
        os.close(sink)
        with os.fdopen(source, "rb") as stream:
            passed = stream.read()
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(json.dumps({"status": status, "passed": json.loads(passed or b"{}")}), flush=True)


if __name__ == "__main__":
    main()
