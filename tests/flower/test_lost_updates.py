"""What a client trained is never lost: an update that did not count is sent again."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable
from flwr.serverapp.strategy import FedAvg, Result
from numpy.typing import NDArray

from flowerpress.client import press
from flowerpress.client.held import load
from flowerpress.compression import Manifest, decode_frames
from flowerpress.protos import MessageCarrier, unpack
from flowerpress.server import Pressed, StreamingMean
from flowerpress.simulations.engines.inline import InlineGrid

SHAPE = (20, 30)
ROUNDS = 5


def change(number: int) -> NDArray[np.float32]:
    return np.random.default_rng(number).standard_normal(SHAPE).astype(np.float32)


@pytest.mark.parametrize("codec", ["stc(density=0.1)", "topk(density=0.2)", "int8", "fedzip"])
@pytest.mark.parametrize("lost", [(2,), (1,), (2, 3, 4), (5,)])
def test_all_that_was_trained_is_applied_or_still_held(
    codec: str, lost: tuple[int, ...], start: Callable[..., Result]
) -> None:
    applied = np.zeros(SHAPE, np.float64)
    contexts: list[Context] = []

    def cut(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        number = int(str(message.content.config_records["config"]["server-round"]))
        reply = call_next(message, context)
        if context.node_config["partition-id"] == 0:
            contexts.append(context)
            blob = MessageCarrier().detach(reply.content, "arrays", None)
            assert blob is not None
            if number in lost:
                MessageCarrier().attach(reply.content, "arrays", blob[:-1])
            else:
                manifest = Manifest.of({"w": np.zeros(SHAPE, np.float32)})
                ((_, decoded),) = decode_frames(manifest, unpack(blob, manifest).frames)
                applied[:] += decoded.dense().reshape(SHAPE)
        return reply

    app = ClientApp(mods=[cut, press()])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        number = int(str(message.content.config_records["config"]["server-round"]))
        w = message.content.array_records["arrays"]["w"].numpy() + change(number)
        arrays = ArrayRecord({"w": Array(w)})
        metrics = MetricRecord({"num-examples": 1})
        return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)

    strategy = Pressed(
        FedAvg(fraction_evaluate=0.0), uplink=codec, downlink="none", seed=0, run_id=3
    )
    arrays = {"w": np.zeros(SHAPE, np.float32)}
    start(strategy, grid=InlineGrid(app, 2), rounds=ROUNDS, arrays=arrays)

    assert [r.round for r in strategy.rejections] == list(lost)
    held = load(contexts[-1], 3)
    assert held is not None
    if ROUNDS in lost:
        assert held.pending
        manifest = Manifest.of(arrays)
        ((_, decoded),) = decode_frames(manifest, unpack(held.pending, manifest).frames)
        applied += decoded.dense().reshape(SHAPE)
    trained = sum(change(number).astype(np.float64) for number in range(1, ROUNDS + 1))
    np.testing.assert_allclose(applied + held.residuals["w"], trained, rtol=0, atol=1e-5)


class Fails(FedAvg):
    """Takes no model in its second round: it says so, or it raises."""

    def __init__(self, how: str) -> None:
        super().__init__(fraction_evaluate=0.0)
        self.how = how

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        if server_round == 2 and self.how == "raises":
            self.how = "mended"
            raise ConnectionError("the disk of the metrics is gone")
        if server_round == 2 and self.how == "refuses":
            return None, None
        return super().aggregate_train(server_round, replies)


@pytest.mark.parametrize("how", ["refuses", "raises", "overflows"])
def test_updates_of_a_round_that_came_to_nothing_are_sent_again(
    how: str, start: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = np.zeros(SHAPE, np.float64)
    contexts: list[Context] = []

    def watched(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        contexts.append(context)
        return call_next(message, context)

    app = ClientApp(mods=[watched, press()])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        step = change(len(contexts))
        trained[:] += step
        w = message.content.array_records["arrays"]["w"].numpy() + step
        arrays, metrics = ArrayRecord({"w": Array(w)}), MetricRecord({"num-examples": 1})
        return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)

    if how == "overflows":
        means: list[dict[str, NDArray[np.float32]]] = []

        def overflowing(mean: StreamingMean) -> dict[str, NDArray[np.float32]]:
            means.append(result_of(mean))
            return {"w": np.full(SHAPE, np.inf, "f4")} if len(means) == 2 else means[-1]

        result_of = StreamingMean.result
        monkeypatch.setattr(StreamingMean, "result", overflowing)
    inner = FedAvg(fraction_evaluate=0.0) if how == "overflows" else Fails(how)
    inner.min_train_nodes = inner.min_available_nodes = 1
    strategy = Pressed(inner, uplink="topk(density=0.2)", downlink="none", seed=0, run_id=3)
    begin = partial(start, strategy, grid=InlineGrid(app, 1), rounds=ROUNDS)
    first = {"w": np.zeros(SHAPE, np.float32)}
    if how == "raises":
        with pytest.raises(ConnectionError):
            begin(arrays=first)
        # Whoever goes on does so from the model that it has: that of the first round.
        first = {"w": strategy._broadcast.held["w"]}
    result = begin(arrays=first)

    assert len(contexts) == ROUNDS + 2 * (how == "raises")
    held = load(contexts[-1], 3)
    assert held is not None
    assert strategy._intake.watermarks == {2: held.sequence}
    final = result.arrays["w"].numpy() + held.residuals["w"]
    np.testing.assert_allclose(final, trained, rtol=0, atol=1e-5)
