"""Apps and models that plain Flower takes, and that press() and Pressed have to take as well."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import Mod
from flwr.serverapp.strategy import FedAdam, FedAvg, FedMedian, FedYogi, Result, Strategy
from numpy.typing import NDArray

from flowerpress.client import press
from flowerpress.server import Pressed
from flowerpress.simulations.engines.inline import InlineGrid

Start = Callable[..., Result]

MODEL: dict[str, NDArray[Any]] = {
    "weight": np.zeros((6, 5), np.float32),
    "steps": np.zeros((), np.int64),
    "mask": np.ones(9, np.bool_),
}


def counting_app(mods: list[Mod], seen: list[list[str]]) -> ClientApp:
    """Adds one to weights and steps, in the record that it was sent, and sends that back."""
    app = ClientApp(mods=mods)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        seen.append(list(message.content))
        record = message.content.array_records["arrays"]
        for name in ("weight", "steps"):
            record[name] = Array(np.asarray(record[name].numpy() + 1))
        metrics = MetricRecord({"num-examples": 1})
        return Message(RecordDict({"arrays": record, "metrics": metrics}), reply_to=message)

    return app


@pytest.mark.parametrize("codec", ["none", "int8"])
def test_an_app_may_train_in_the_record_that_it_was_sent(codec: str, start: Start) -> None:
    seen: list[list[str]] = []
    strategy = Pressed(FedAvg(fraction_evaluate=0.0), uplink=codec)
    grid = InlineGrid(counting_app([press()], seen), 3)
    result = start(strategy, arrays=MODEL, grid=grid)
    assert not strategy.rejections
    np.testing.assert_array_equal(result.arrays["weight"].numpy(), np.full((6, 5), 3, np.float32))
    assert result.arrays["steps"].numpy() == 3
    assert result.arrays["mask"].numpy().all()


def test_an_app_sees_the_records_that_it_sees_in_plain_flower(start: Start) -> None:
    plain: list[list[str]] = []
    start(FedAvg(fraction_evaluate=0.0), arrays=MODEL, grid=InlineGrid(counting_app([], plain), 2))
    pressed: list[list[str]] = []
    grid = InlineGrid(counting_app([press()], pressed), 2)
    start(Pressed(FedAvg(fraction_evaluate=0.0)), arrays=MODEL, grid=grid)
    assert pressed == plain


@pytest.mark.parametrize("codec", ["none", "int8"])
@pytest.mark.parametrize("make", [FedAdam, FedYogi, FedMedian])
def test_counters_survive_a_server_optimizer_that_turns_them_into_fractions(
    make: Callable[..., Strategy], codec: str, start: Start
) -> None:
    strategy = Pressed(make(fraction_evaluate=0.0), uplink=codec)
    result = start(strategy, arrays=MODEL, grid=InlineGrid(counting_app([press()], []), 3))
    assert not strategy.rejections
    assert (result.arrays["weight"].numpy() > 0).all()
