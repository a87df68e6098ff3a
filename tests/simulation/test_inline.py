"""The embedded engine in one process, with small client apps."""

from __future__ import annotations

import copy
import gc
import random
import weakref
from collections.abc import Callable

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.serverapp.strategy import FedAvg

from flowerpress.simulations.engines.errors import EngineError
from flowerpress.simulations.engines.grid import FIRST_NODE, server_identity
from flowerpress.simulations.engines.inline import InlineGrid
from flowerpress.simulations.engines.ordering import ordered

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
