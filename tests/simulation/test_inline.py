"""The embedded engine in one process, with small client apps."""

from __future__ import annotations

import copy
import gc
import random
import re
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.serverapp.strategy import FedAvg
from safetensors.torch import load_file
from torch import nn

from flowerpress.compression.errors import ConfigError, UnknownNameError
from flowerpress.simulations.config import StrategyName, load_config
from flowerpress.simulations.engines import EngineError, StoppedError, run
from flowerpress.simulations.engines.grid import FIRST_NODE, server_identity
from flowerpress.simulations.engines.inline import InlineGrid
from flowerpress.simulations.engines.ordering import ordered
from flowerpress.simulations.loaded import load
from flowerpress.simulations.record import RoundRecord, read_run
from flowerpress.simulations.tasks import load_task

Handler = Callable[[Message, Context], Message]


def app_of(handler: Handler) -> ClientApp:
    app = ClientApp()
    app.train()(handler)
    app.query()(handler)
    return app


def instruction(node: int, content: RecordDict | None = None) -> Message:
    with server_identity(1):
        return Message(content or RecordDict(), node, "train")


def partition_of(message: Message, context: Context) -> Message:
    record = MetricRecord({"partition-id": int(context.node_config["partition-id"])})
    return Message(RecordDict({"partition": record}), reply_to=message)


def test_a_client_runs_when_its_reply_is_pulled_and_only_then() -> None:
    ran = []

    def handler(message: Message, context: Context) -> Message:
        ran.append(context.node_config["partition-id"])
        return partition_of(message, context)

    grid = InlineGrid(app_of(handler), 5)
    ids = list(grid.push_messages([instruction(node) for node in grid.get_node_ids()]))
    assert ran == []
    (reply,) = grid.pull_messages([ids[3]])
    assert ran == [3]
    assert reply.metadata.reply_to_message_id == ids[3]
    assert reply.metadata.src_node_id == FIRST_NODE + 3
    assert list(grid.pull_messages([ids[3], "999"])) == []  # taken, and never pushed
    pulled = grid.pull_messages([ids[1], ids[0]])
    assert ran == [3]
    next(iter(pulled))
    assert ran == [3, 1]


def test_replies_do_not_pile_up() -> None:
    alive: list[weakref.ref[Array]] = []

    def handler(message: Message, context: Context) -> Message:
        record = ArrayRecord({"w": Array(np.zeros(1000, np.float32))})
        return Message(RecordDict({"arrays": record}), reply_to=message)

    grid = InlineGrid(app_of(handler), 50)
    ids = grid.push_messages([instruction(node) for node in grid.get_node_ids()])
    most = 0
    gc.freeze()  # what is there already need not be searched fifty times
    for reply in grid.pull_messages(ids):
        alive.append(weakref.ref(reply.content.array_records["arrays"]["w"]))
        del reply
        gc.collect()
        most = max(most, sum(ref() is not None for ref in alive))
    gc.unfreeze()
    assert len(alive) == 50
    assert most <= 1


def test_state_is_kept_by_each_node_across_rounds() -> None:
    def handler(message: Message, context: Context) -> Message:
        seen = context.state.metric_records.get("seen", MetricRecord({"n": 0}))["n"]
        assert isinstance(seen, int)
        context.state["seen"] = MetricRecord({"n": seen + 1})
        return Message(RecordDict({"seen": context.state["seen"]}), reply_to=message)

    grid = InlineGrid(app_of(handler), 3)
    first, second, _ = grid.get_node_ids()
    counts = []
    for node in (first, second, first, first):
        (reply,) = grid.send_and_receive([instruction(node)])
        counts.append(reply.content.metric_records["seen"]["n"])
    assert counts == [1, 1, 2, 3]


def test_nobody_can_change_what_another_sees() -> None:
    kept: list[Message] = []

    def handler(message: Message, context: Context) -> Message:
        config = message.content.config_records["config"]
        assert config["list"] == [1, 2]
        config["list"].append(3)  # type: ignore[arg-type]
        arrays = message.content.array_records["arrays"]
        assert arrays["w"].stype == "numpy.ndarray"
        arrays["w"].stype = "mine"
        arrays["v"] = Array(np.zeros(3, np.float32))
        del message.content["config"]
        content = RecordDict({"arrays": arrays})
        reply = Message(content, reply_to=message)
        kept.append(reply)
        return reply

    content = RecordDict(
        {
            "config": ConfigRecord({"list": [1, 2]}),
            "arrays": ArrayRecord({"w": Array(np.ones(3, np.float32))}),
        }
    )
    grid = InlineGrid(app_of(handler), 3)
    messages = [instruction(node, content) for node in grid.get_node_ids()]
    for reply in grid.send_and_receive(messages):
        assert not reply.has_error(), reply.error.reason
        reply.content.array_records["arrays"].clear()
    assert content.config_records["config"] == ConfigRecord({"list": [1, 2]})
    assert list(content.array_records["arrays"]) == ["w"]
    assert content.array_records["arrays"]["w"].stype == "numpy.ndarray"
    assert all(len(reply.content.array_records["arrays"]) == 2 for reply in kept)


def test_an_exception_is_an_error_reply_and_the_others_go_on() -> None:
    def handler(message: Message, context: Context) -> Message:
        if context.node_config["partition-id"] == 1:
            raise ZeroDivisionError("no such luck")
        return partition_of(message, context)

    grid = InlineGrid(app_of(handler), 3)
    replies = list(grid.send_and_receive([instruction(node) for node in grid.get_node_ids()]))
    assert [reply.has_error() for reply in replies] == [False, True, False]
    assert replies[1].error.reason == "ZeroDivisionError: no such luck"
    assert replies[1].error.code == ErrorCode.CLIENT_APP_RAISED_EXCEPTION
    assert replies[1].metadata.src_node_id == FIRST_NODE + 1


def test_something_else_than_a_message_is_an_error_reply() -> None:
    grid = InlineGrid(app_of(lambda message, context: None), 1)  # type: ignore[arg-type, return-value]
    (reply,) = grid.send_and_receive([instruction(FIRST_NODE)])
    assert reply.error.reason == "TypeError: the ClientApp returned NoneType, not a Message"


def test_ctrl_c_in_a_client_is_not_an_error_reply() -> None:
    def handler(message: Message, context: Context) -> Message:
        raise KeyboardInterrupt

    grid = InlineGrid(app_of(handler), 1)
    with pytest.raises(KeyboardInterrupt):
        grid.send_and_receive([instruction(FIRST_NODE)])


def test_clients_leave_the_global_generators_alone() -> None:
    def handler(message: Message, context: Context) -> Message:
        random.seed(1)
        np.random.seed(1)
        torch.manual_seed(1)
        if context.node_config["partition-id"] == 1:
            raise ValueError("after seeding")
        return partition_of(message, context)

    grid = InlineGrid(app_of(handler), 2)

    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.random()), float(torch.rand(()))

    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    expected = [draw(), draw(), draw()]
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    drawn = [draw()]
    for node in grid.get_node_ids():
        grid.send_and_receive([instruction(node)])
        drawn.append(draw())
    assert drawn == expected


def test_a_message_to_nobody_is_refused() -> None:
    grid = InlineGrid(app_of(partition_of), 2)
    for node in (0, 1, FIRST_NODE + 2):
        with pytest.raises(ValueError, match="there is no node"):
            grid.push_messages([instruction(node)])


def test_no_time_no_reply() -> None:
    grid = InlineGrid(app_of(partition_of), 2)
    assert list(grid.send_and_receive([instruction(FIRST_NODE)], timeout=0)) == []


class _Shuffled(InlineGrid):
    """Lists its nodes as Flower's own engine does: in no order."""

    def get_node_ids(self) -> list[int]:
        nodes = list(super().get_node_ids())
        return nodes[1::2] + nodes[::2]


def test_ordered_lists_nodes_by_their_partitions() -> None:
    with server_identity(1):
        grid = ordered(_Shuffled(app_of(partition_of), 7), 7)
    assert list(grid.get_node_ids()) == list(range(FIRST_NODE, FIRST_NODE + 7))
    assert list(grid.partitions.values()) == list(range(7))


def test_what_is_sampled_does_not_depend_on_who_else_draws() -> None:
    """Threads of Flower's draw from the global generator while a run goes on."""

    def sample(seed: int, draws: int) -> list[list[int]]:
        with server_identity(1):
            grid = ordered(InlineGrid(app_of(partition_of), 20), 20, seed)
        chosen = []
        for _ in range(5):
            for _ in range(draws):
                random.random()
            chosen.append(random.sample(list(grid.get_node_ids()), 3))
        return chosen

    first = sample(1, draws=0)
    assert sample(1, draws=7) == first
    assert sample(2, draws=0) != first
    assert len({tuple(nodes) for nodes in first}) > 1


def test_ordered_needs_every_partition_once() -> None:
    def wrong(message: Message, context: Context) -> Message:
        return Message(
            RecordDict({"partition": MetricRecord({"partition-id": 0})}), reply_to=message
        )

    with server_identity(1), pytest.raises(EngineError, match=r"partitions 0 to 1.*\[0, 0\]"):
        ordered(InlineGrid(app_of(wrong), 2), 2)

    def broken(message: Message, context: Context) -> Message:
        raise OSError("no data here")

    with (
        server_identity(1),
        pytest.raises(EngineError, match="cannot start: OSError: no data here"),
    ):
        ordered(InlineGrid(app_of(broken), 2), 2)

    def silent(message: Message, context: Context) -> Message:
        return Message(RecordDict(), reply_to=message)

    with server_identity(1), pytest.raises(EngineError, match="does not say which partition"):
        ordered(InlineGrid(app_of(silent), 2), 2)


def test_a_stock_strategy_gives_the_mean() -> None:
    """FedAvg over the grid equals the weighted mean computed by hand, round after round."""

    def handler(message: Message, context: Context) -> Message:
        partition = int(context.node_config["partition-id"])
        model = message.content.array_records["arrays"]["w"].numpy() + partition
        content = RecordDict(
            {
                "arrays": ArrayRecord({"w": Array(model)}),
                "metrics": MetricRecord({"num-examples": partition + 1}),
            }
        )
        return Message(content, reply_to=message)

    start = ArrayRecord({"w": Array(np.zeros(4, np.float64))})
    before = copy.deepcopy(start)
    strategy = FedAvg(fraction_evaluate=0.0)
    with server_identity(1):
        result = strategy.start(InlineGrid(app_of(handler), 4), start, num_rounds=3)
    step = sum(p * (p + 1) for p in range(4)) / sum(p + 1 for p in range(4))
    np.testing.assert_allclose(result.arrays["w"].numpy(), np.full(4, 3 * step))
    assert start == before


TASK = """
import torch
from torch import nn
from flowerpress.simulations.tasks import Data, Samples, Task

class Tiny(Task):
    clients = 3

    def load(self):
        generator = torch.Generator().manual_seed(0)
        inputs = torch.randn(90, 4, generator=generator)
        labels = (inputs.sum(1) > 0).long()
        train, test = Samples(inputs[:60], labels[:60]), Samples(inputs[60:], labels[60:])
        return Data(train, test, ("n", "p"))

    def build(self):
        return nn.Linear(4, 2)
"""


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A task of the user's own; runs go to a folder of this test."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny_task.py").write_text(TASK)
    return "task=tiny_task.py:Tiny"


def test_a_run_leaves_records_summary_and_model(tiny: str) -> None:
    seen: list[RoundRecord] = []
    config = load_config(None, [tiny, "rounds=5", "evaluate_every=2", "uplink=qsgd", "seed=7"])
    folder = run(config, seen.append)
    assert folder == Path("runs/tiny_task-Tiny-qsgd-seed7").absolute()
    assert run(config).name == "tiny_task-Tiny-qsgd-seed7-2"

    written = read_run(folder)
    assert list(written.records) == seen
    assert [r.round for r in seen] == [0, 1, 2, 3, 4, 5]
    assert [r.accuracy is not None for r in seen] == [True, False, True, False, True, True]
    assert [r.clients for r in seen] == [0, 3, 3, 3, 3, 3]
    assert seen[0].bytes_total == 0
    for record in seen[1:]:
        assert record.bytes_up == sum(record.up_by_tensor.values()) > 0
        assert record.bytes_down == sum(record.down_by_tensor.values()) > 0
        assert record.raw_bytes_up == record.raw_bytes_down == 3 * 4 * (4 * 2 + 2)
        assert record.train_loss is not None
    last = seen[-1]
    assert last.client_accuracy is not None
    assert last.worst_client is not None
    known = [a for a in last.client_accuracy if a is not None]
    assert min(known) == last.worst_client.accuracy
    assert last.client_accuracy[last.worst_client.client] == last.worst_client.accuracy

    summary = written.summary
    assert summary is not None
    assert summary.finished
    assert summary.classes == ("n", "p")
    assert [(t.name, t.shape, t.dtype) for t in summary.tensors] == [
        ("weight", (2, 4), "float32"),
        ("bias", (2,), "float32"),
    ]
    # What was left to the task is written out, so that the run can be told from its summary.
    assert (summary.config["clients"], summary.config["partition"]) == (3, "iid")
    assert summary.config["downlink"] == "qsgd"
    model = nn.Linear(4, 2)
    model.load_state_dict(load_file(folder / "model.safetensors"))
    test = load_task("tiny_task.py:Tiny").load().test
    right = (model(test.inputs).argmax(1) == test.labels).float().mean()
    assert last.accuracy == pytest.approx(float(right))


def test_a_run_depends_on_its_seed_alone(tiny: str) -> None:
    def play(seed: int) -> list[RoundRecord]:
        seen: list[RoundRecord] = []
        words = [tiny, "rounds=3", f"seed={seed}", "fraction=0.7", "uplink=qsgd", "clients=5"]
        run(load_config(None, words), seen.append)
        return [replace(record, seconds=0.0) for record in seen]

    before = random.getstate(), torch.get_rng_state(), torch.get_num_threads()
    first = play(1)
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    assert torch.get_num_threads() == before[2]
    random.seed(99)
    torch.manual_seed(99)
    assert play(1) == first
    assert play(2) != first
    assert [record.clients for record in first] == [0, 4, 4, 4]  # round(0.7 * 5)


@pytest.mark.parametrize("strategy", get_args(StrategyName))
def test_every_strategy_runs(tiny: str, strategy: str) -> None:
    words = [tiny, "rounds=2", f"strategy={strategy}", "clients=5", "uplink=int8"]
    records = read_run(run(load_config(None, words))).records
    assert records[-1].left_out == ()
    assert records[-1].loss != records[0].loss


def test_fedprox_draws_clients_back(tiny: str) -> None:
    """A heavy proximal term leaves the model near where it started; a light one does not."""

    def moved(mu: float) -> float:
        words = [tiny, "rounds=1", "strategy=fedprox", "uplink=none", "training.lr=0.001"]
        words += ["training.epochs=20", f"strategy_options.proximal_mu={mu}", "training.momentum=0"]
        records = read_run(run(load_config(None, words))).records
        assert records[0].loss is not None
        assert records[1].loss is not None
        return records[0].loss - records[1].loss

    assert 0 < moved(900.0) < 0.2 * moved(0.0)


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (["task=digit"], UnknownNameError, "did you mean 'digits'"),
        (["uplink=stk"], UnknownNameError, "did you mean 'stc'"),
        (["downlink=stc(density=2)"], ConfigError, "density"),
        (
            ["strategy_options.etta=1"],
            UnknownNameError,
            "unknown option of strategy fedadam 'etta'",
        ),
        (["strategy_options.eta=big"], ConfigError, "strategy_options.eta = 'big' is not allowed"),
        (["strategy_options.fraction_train=1.0"], UnknownNameError, "fraction_train"),
        (["partition=dirichlet(alpha=-1)"], ConfigError, "alpha"),
    ],
)
def test_what_cannot_be_used_is_said_before_anything_is_written(
    tiny: str, tmp_path: Path, words: list[str], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=re.escape(message)):
        run(load_config(None, [tiny, "strategy=fedadam", *words]))
    assert not (tmp_path / "runs").exists()


def test_a_finished_run_is_not_overwritten(tiny: str) -> None:
    config = load_config(None, [tiny, "rounds=1", "out=mine"])
    run(config)
    with pytest.raises(ConfigError, match="holds a finished run"):
        run(config)


def broken_task(tmp_path: Path, statement: str) -> str:
    lines = f"\n    def train(self, model, samples, training, generator):\n        {statement}\n"
    (tmp_path / "broken_task.py").write_text(TASK + lines)
    return "task=broken_task.py:Tiny"


def test_a_task_that_cannot_train_stops_the_run(tiny: str, tmp_path: Path) -> None:
    task = broken_task(tmp_path, "raise RuntimeError('shapes do not match')")
    with pytest.raises(EngineError, match=r"all 3 clients .*RuntimeError: shapes do not match"):
        run(load_config(None, [task]))


def test_a_client_that_fails_is_left_out_by_its_partition(tiny: str, tmp_path: Path) -> None:
    # The broken task has the same data in the same parts: the third client is known by them.
    first = load(load_config(None, [tiny])).samples(2).inputs[0, 0].item()
    statement = f"if samples.inputs[0, 0].item() == {first!r}: raise RuntimeError('no disk')"
    statement += "\n        return super().train(model, samples, training, generator)"
    task = broken_task(tmp_path, statement)
    records = read_run(run(load_config(None, [task, "rounds=2"]))).records
    for record in records[1:]:
        assert [(left.client, left.error) for left in record.left_out] == [(2, "ClientAppError")]
        assert "RuntimeError: no disk" in record.left_out[0].message
        assert record.clients == 3
        assert record.raw_bytes_up == 2 * 4 * (4 * 2 + 2)


def test_ctrl_c_leaves_the_rounds_and_says_where(tiny: str, tmp_path: Path) -> None:
    def stop(record: RoundRecord) -> None:
        if record.round == 2:
            raise KeyboardInterrupt

    with pytest.raises(StoppedError) as caught:
        run(load_config(None, [tiny, "out=stopped"]), stop)
    assert str(tmp_path / "stopped" / "rounds.jsonl") in str(caught.value)
    left = read_run(tmp_path / "stopped")
    assert [record.round for record in left.records] == [0, 1, 2]
    assert left.summary is None
