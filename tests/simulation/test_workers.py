"""The embedded engine on several processes: same results, and no process left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid

from flowerpress.simulations.config import load_config
from flowerpress.simulations.engines import EngineError, run
from flowerpress.simulations.engines.grid import FIRST_NODE, server_identity
from flowerpress.simulations.engines.inline import InlineGrid
from flowerpress.simulations.engines.pipe import from_bytes, to_bytes
from flowerpress.simulations.engines.workers import WorkerGrid
from flowerpress.simulations.record import RoundRecord, read_run

CLIENTS = """
import os, random, signal, sys, time
import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

def make(argument):
    if argument == "refuse":
        raise ValueError("not today")
    app = ClientApp()

    @app.train()
    def train(message, context):
        print("clients may print")
        partition = context.node_config["partition-id"]
        order = message.content.config_records.get("order", {})
        if order.get("die") == partition:
            os.kill(os.getpid(), signal.SIGKILL)
        if order.get("leave") == partition:
            os._exit(7)
        if order.get("fail") == partition:
            raise KeyError("lost")
        if order.get("sleep") == partition:
            time.sleep(600)
        state = context.state.metric_records.get("state", MetricRecord({"n": 0}))
        n = state["n"] + 1
        context.state["state"] = MetricRecord({"n": n})
        random.seed(partition)
        time.sleep(0.003 * random.random())
        array = Array(np.full(1000, argument.count("x") + partition * n, np.float32))
        metrics = MetricRecord({"partition": partition, "n": n, "pid": os.getpid()})
        content = RecordDict({"arrays": ArrayRecord({"w": array}), "metrics": metrics})
        return Message(content, reply_to=message)

    return app
"""


@pytest.fixture
def factory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "press_test_clients.py").write_text(CLIENTS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "press_test_clients:make"
    sys.modules.pop("press_test_clients", None)


def instructions(nodes: list[int], **order: int) -> list[Message]:
    content = RecordDict({"order": ConfigRecord(dict(order))})
    with server_identity(1):
        return [Message(content, node, "train") for node in nodes]


Reply = tuple[object, object, bytes]


def play(grid: Grid, pull_backwards: bool = False) -> list[Reply]:
    """Three rounds with some of seven clients; return everything but who computed it."""
    seen: list[Reply] = []
    nodes = list(grid.get_node_ids())
    for chosen in (nodes, nodes[::2], nodes[::-1]):
        ids = list(grid.push_messages(instructions(chosen)))
        replies = {}
        for message_id in reversed(ids) if pull_backwards else ids:
            (replies[message_id],) = grid.pull_messages([message_id])
        for message_id in ids:
            content = replies[message_id].content
            metrics = content.metric_records["metrics"]
            data = content.array_records["arrays"]["w"].data
            seen.append((metrics["partition"], metrics["n"], data))
    return seen


def test_results_are_the_same_for_any_number_of_workers(factory: str) -> None:
    import press_test_clients  # type: ignore[import-not-found]

    expected = play(InlineGrid(press_test_clients.make("xx"), 7))
    assert len(expected) == 7 + 4 + 7
    for workers in (1, 2, 3):
        with WorkerGrid(factory, "xx", 7, workers) as grid:
            assert play(grid, pull_backwards=workers == 3) == expected


def test_a_client_stays_with_its_worker(factory: str) -> None:
    with WorkerGrid(factory, "", 5, 2) as grid:
        nodes = list(grid.get_node_ids())
        rounds = []
        for _ in range(2):
            replies = grid.send_and_receive(instructions(nodes))
            rounds.append([r.content.metric_records["metrics"]["pid"] for r in replies])
    assert rounds[0] == rounds[1]
    first, second = rounds[0][:2]
    assert first != second
    assert rounds[0] == [first, second, first, second, first]


def test_an_exception_is_an_error_reply(factory: str) -> None:
    with WorkerGrid(factory, "", 2, 2) as grid:
        replies = list(grid.send_and_receive(instructions([2, 3, 2], fail=1)))
    assert [reply.has_error() for reply in replies] == [False, True, False]
    assert replies[1].error.reason == "KeyError: 'lost'"


@pytest.mark.parametrize(
    ("order", "how"),
    [({"die": 1}, "killed by SIGKILL"), ({"leave": 1}, "ended with exit code 7")],
)
def test_a_worker_that_dies_is_named(factory: str, order: dict[str, int], how: str) -> None:
    with WorkerGrid(factory, "", 4, 2) as grid:
        ids = list(grid.push_messages(instructions(list(grid.get_node_ids()), **order)))
        assert len(list(grid.pull_messages(ids[:1]))) == 1
        with pytest.raises(EngineError, match=f"worker 1 of 2.*{how}"):
            list(grid.pull_messages(ids[1:]))


def test_a_factory_that_fails_is_told_with_its_reason(factory: str) -> None:
    with (
        WorkerGrid(factory, "refuse", 2, 2) as grid,
        pytest.raises(EngineError, match="failed with ValueError: not today"),
    ):
        grid.send_and_receive(instructions([FIRST_NODE]))


def test_a_run_on_workers_is_the_run_in_one_process(tmp_path: Path) -> None:
    """Bit for bit: the same rounds but for their seconds, and the same model."""
    words = ["task=digits", "clients=5", "rounds=3", "fraction=0.8", "uplink=qsgd"]

    def play(workers: int) -> tuple[list[RoundRecord], bytes]:
        out = tmp_path / str(workers)
        run(load_config(None, [*words, f"workers={workers}", f"out={out}"]))
        records = [replace(record, seconds=0.0) for record in read_run(out).records]
        return records, (out / "model.safetensors").read_bytes()

    one = play(1)
    assert one[0][-1].bytes_up > 0
    assert play(2) == one


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_workers_end_with_a_parent_that_is_killed(factory: str) -> None:
    """Even in the middle of a training of ten minutes."""
    parent = textwrap.dedent(f"""
        from flwr.app import ConfigRecord, Message, RecordDict
        from flowerpress.simulations.engines.grid import server_identity
        from flowerpress.simulations.engines.workers import WorkerGrid

        grid = WorkerGrid({factory!r}, "", 2, 2)
        content = RecordDict({{"order": ConfigRecord({{"sleep": 1}})}})
        with server_identity(1):
            messages = [Message(content, node, "train") for node in (2, 3)]
        ids = grid.push_messages(messages)
        list(grid.pull_messages(ids[:1]))
        print(*[worker.process.pid for worker in grid._workers], flush=True)
        list(grid.pull_messages(ids[1:]))
        grid.pull_messages(input())
    """)
    process = subprocess.Popen(
        [sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    pids = [int(word) for word in process.stdout.readline().split()]
    assert len(pids) == 2
    assert all(alive(pid) for pid in pids)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    deadline = time.monotonic() + 10
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(alive(pid) for pid in pids)


def test_messages_survive_the_pipe() -> None:
    content = RecordDict(
        {
            "arrays": ArrayRecord({"blob": Array("uint8", (3,), "own.type/1", b"\0\1\2")}),
            "more": ArrayRecord({"w": Array(np.arange(6, dtype=np.float16).reshape(2, 3))}),
            "metrics": MetricRecord({"a": 1, "b": [0.1, float("inf")]}),
        }
    )
    with server_identity(9):
        message = Message(content, 5, "train", group_id="7")
    again = from_bytes(to_bytes(message))
    assert again.content == content
    assert again.content.array_records["arrays"]["blob"].stype == "own.type/1"
    assert vars(again.metadata) == vars(message.metadata)
