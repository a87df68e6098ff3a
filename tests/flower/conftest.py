"""A third-party app in a few lines, and a way to run it under any strategy in this process."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import Mod
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy
from numpy.typing import NDArray

from flowerpress.simulations.engines.grid import server_identity
from flowerpress.simulations.engines.inline import InlineGrid

Arrays = dict[str, NDArray[np.float32]]
RunStrategy = Callable[..., Result]


def initial() -> Arrays:
    rng = np.random.default_rng(7)
    return {
        "conv.weight": rng.standard_normal((8, 4, 3, 3)).astype(np.float32),
        "fc.weight": rng.standard_normal((64, 100)).astype(np.float32),
        "fc.bias": np.zeros(64, np.float32),
    }


def target(partition: int) -> Arrays:
    """What a client wants: a shift that all share, and a little of its own."""
    shared, own = np.random.default_rng(100), np.random.default_rng(101 + partition)
    return {
        k: (v + shared.standard_normal(v.shape) + 0.2 * own.standard_normal(v.shape)).astype("f4")
        for k, v in initial().items()
    }


def make_app(mods: list[Mod]) -> ClientApp:
    """Each client takes a step towards its own target: a quadratic loss, solved by the mean."""
    app = ClientApp(mods=mods)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        partition = int(context.node_config["partition-id"])
        goal = target(partition)
        arrays = {k: v.numpy() for k, v in message.content.array_records["arrays"].items()}
        stepped = {k: v + np.float32(0.2) * (goal[k] - v) for k, v in arrays.items()}
        loss = float(sum(((goal[k] - v.astype("f8")) ** 2).sum() for k, v in arrays.items()))
        content = RecordDict(
            {
                "arrays": ArrayRecord({k: Array(v) for k, v in stepped.items()}),
                "metrics": MetricRecord({"num-examples": 10 + partition, "loss": loss}),
            }
        )
        return Message(content, reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        goal = target(int(context.node_config["partition-id"]))
        arrays = {k: v.numpy() for k, v in message.content.array_records["arrays"].items()}
        loss = float(sum(((goal[k] - v.astype("f8")) ** 2).sum() for k, v in arrays.items()))
        metrics = MetricRecord({"num-examples": 10, "loss": loss})
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    return app


def run_strategy(
    strategy: Strategy,
    mods: list[Mod] | None = None,
    *,
    clients: int = 4,
    rounds: int = 3,
    grid: Grid | None = None,
    arrays: Arrays | None = None,
) -> Result:
    random.seed(3)  # Flower samples clients with the global generator, and sums in that order
    grid = grid or InlineGrid(make_app(mods or []), clients)
    with server_identity(grid.run.run_id):
        return strategy.start(
            grid,
            ArrayRecord({k: Array(v) for k, v in (arrays or initial()).items()}),
            num_rounds=rounds,
            train_config=ConfigRecord({"lr": 0.5}),
        )


@pytest.fixture
def third_party() -> Callable[[list[Mod]], ClientApp]:
    return make_app


@pytest.fixture
def start() -> RunStrategy:
    return run_strategy


@pytest.fixture
def first_model() -> Arrays:
    return initial()
