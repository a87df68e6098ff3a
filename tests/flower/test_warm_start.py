"""Codecs that start where they ended keep that in the client's state and on the server."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg, Result
from numpy.typing import NDArray

import flowerpress.client.held as held_module
from flowerpress.client import press
from flowerpress.client.held import Held, load, save
from flowerpress.compression import preset
from flowerpress.protos import to_record
from flowerpress.server import Pressed
from flowerpress.server.broadcast import Broadcast
from flowerpress.simulations.engines.inline import InlineGrid

RUN = 5
SHAPE = (40, 60)


@pytest.fixture(autouse=True)
def _the_same_work_warm_or_cold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowerpress.compression.factors.EXTRA_TURNS", 0)


def change(number: int) -> NDArray[np.float32]:
    """Changes of rank four that stay, and noise."""
    rng = np.random.default_rng(0)
    left, right = rng.standard_normal((SHAPE[0], 4)), rng.standard_normal((4, SHAPE[1]))
    noise = np.random.default_rng(number).standard_normal(SHAPE)
    return np.asarray(left @ right + 0.3 * noise, np.float32)


def empty_context() -> Context:
    return Context(RUN, 0, {"partition-id": 0}, RecordDict(), {})


def test_state_comes_back() -> None:
    context = empty_context()
    model = to_record({"w": np.ones((3, 4), np.float32)})
    warm = {"w": np.arange(8, dtype=np.float32).reshape(2, 4)}
    save(context, Held(RUN, 1, b"d", 2, model, warm=warm))
    again = load(context, RUN)
    assert again is not None
    np.testing.assert_array_equal(again.warm["w"], warm["w"], strict=True)
    assert load(context, RUN + 1) is None


def test_a_state_from_before_there_was_a_warm_start() -> None:
    context = empty_context()
    save(context, Held(RUN, 1, b"d", 2, to_record({"w": np.ones(3, np.float32)})))
    del context.state[held_module._WARM]
    again = load(context, RUN)
    assert again is not None
    assert again.warm == {}


def test_a_client_goes_on_where_it_ended(
    start: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    contexts: list[Context] = []
    app = ClientApp(mods=[press()])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        contexts.append(context)
        number = int(str(message.content.config_records["config"]["server-round"]))
        w = message.content.array_records["arrays"]["w"].numpy() + change(number)
        arrays = ArrayRecord({"w": Array(w)})
        metrics = MetricRecord({"num-examples": 1})
        return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)

    def after_rounds(rounds: int) -> Held:
        strategy = Pressed(
            FedAvg(fraction_evaluate=0.0),
            uplink="powersgd(rank=4)",
            downlink="none",
            seed=0,
            run_id=RUN,
        )
        arrays = {"w": np.zeros(SHAPE, np.float32)}
        start(strategy, grid=InlineGrid(app, 2), rounds=rounds, arrays=arrays)
        held = load(contexts[-1], RUN)
        assert held is not None
        return held

    warm = [after_rounds(rounds) for rounds in (1, 6)]
    assert [held.warm["w"].shape for held in warm] == [(4, SHAPE[1])] * 2
    monkeypatch.setattr("flowerpress.client.coded.warmth", lambda *_: {})
    cold = [after_rounds(rounds) for rounds in (1, 6)]
    assert [held.warm for held in cold] == [{}, {}]
    assert unsent(warm[0].residuals) == unsent(cold[0].residuals)
    assert unsent(warm[1].residuals) < 0.8 * unsent(cold[1].residuals)


def test_the_server_goes_on_where_it_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    def apart() -> list[float]:
        none = preset("none")
        sender = Broadcast(RUN, preset("powersgd(rank=4)"), none, none, seed=0)
        model = {"w": np.zeros(SHAPE, np.float32)}
        out = []
        for number in range(1, 8):
            sender.publish(number, model)
            out.append(unsent({"w": model["w"] - sender.held["w"]}))
            model = {"w": model["w"] + change(number)}
        return out

    warm = apart()
    monkeypatch.setattr("flowerpress.server.broadcast.warmth", lambda *_: {})
    cold = apart()
    assert warm[:2] == cold[:2]
    assert warm[0] == 0
    assert sum(warm[2:]) < 0.8 * sum(cold[2:])


def unsent(arrays: dict[str, NDArray[np.float32]]) -> float:
    return float((arrays["w"].astype(np.float64) ** 2).sum())
