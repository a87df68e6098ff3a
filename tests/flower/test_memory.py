"""The server's memory does not grow with the number of clients."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAdam, FedAvg, Result, Strategy

from flowerpress.client import press
from flowerpress.server import Pressed
from flowerpress.simulations.engines.grid import LocalGrid, answer, node_context

ELEMENTS = 100_000
MODEL = 4 * ELEMENTS


class ForgetfulGrid(LocalGrid):
    """Runs a client when its reply is pulled, and forgets the client's state at once.

    What remains allocated is the server's alone; what is garbage (Flower's records refer to
    themselves) is collected, or it would be measured too.
    """

    def __init__(self, app: ClientApp, clients: int) -> None:
        super().__init__(clients, run_id=1)
        self._app = app
        self._waiting: dict[str, Message] = {}

    def _accept(self, message: Message) -> None:
        self._waiting[message.metadata.message_id] = message

    def _reply(self, message_id: str, patience: float | None) -> Message | None:
        gc.collect()
        message = self._waiting.pop(message_id)
        context: Context = node_context(message.metadata.dst_node_id, len(self._node_ids), 1)
        return answer(self._app, message, context)


def peak(
    start: Callable[..., Result],
    app: ClientApp,
    make: Callable[..., Strategy],
    codec: str,
    clients: int,
) -> int:
    """Return the peak of traced bytes during a round."""
    arrays = {"w": np.random.default_rng(0).standard_normal((100, ELEMENTS // 100)).astype("f4")}
    strategy = Pressed(make(fraction_evaluate=0.0), uplink=codec, seed=0)
    gc.collect()
    gc.freeze()  # collecting is quick if only this run's objects are looked at
    tracemalloc.start()
    try:
        start(strategy, grid=ForgetfulGrid(app, clients), arrays=arrays, rounds=1)
        _, highest = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        gc.unfreeze()
    assert not strategy.rejections
    assert len(strategy.meter.of(1).uplink.by_client) == clients
    return highest


@pytest.fixture
def app() -> ClientApp:
    app = ClientApp(mods=[press()])

    def walk(message: Message, context: Context) -> Message:
        w = message.content.array_records["arrays"]["w"].numpy()
        rng = np.random.default_rng(int(context.node_config["partition-id"]))
        step = rng.standard_normal(w.shape).astype("f4")
        arrays = ArrayRecord({"w": Array(w + step)})
        content = RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 1})})
        return Message(content, reply_to=message)

    app.train()(walk)
    return app


@pytest.mark.parametrize(("make", "codec"), [(FedAvg, "stc"), (FedAvg, "none"), (FedAdam, "int8")])
def test_two_hundred_clients_take_the_memory_of_ten(
    start: Callable[..., Result], app: ClientApp, make: Callable[..., Strategy], codec: str
) -> None:
    peak(start, app, make, codec, 2)  # compiles kernels, which is not what is measured
    few, many = peak(start, app, make, codec, 10), peak(start, app, make, codec, 200)
    # Messages and metrics take some KiB a client; a model, or a decoded update, would show.
    assert many - few < 190 * MODEL / 20
    assert few < 40 * MODEL
