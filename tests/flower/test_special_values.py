"""NaN, infinities, the largest float and a subnormal one in every field: none reaches the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable, Mod
from flwr.serverapp.strategy import FedAvg, Result
from numpy.typing import NDArray

from flowerpress.client import press
from flowerpress.compression import Frame, Manifest, encode_frames, preset
from flowerpress.protos import MessageCarrier, Receipt, Update, pack, unpack
from flowerpress.server import Pressed
from flowerpress.simulations.engines.inline import InlineGrid

Start = Callable[..., Result]
Arrays = dict[str, NDArray[np.float32]]

SPECIAL = {
    "NaN": np.nan,
    "infinity": np.inf,
    "minus infinity": -np.inf,
    "largest": float(np.finfo(np.float32).max),
    "subnormal": 1e-45,
}
NOT_FINITE = ("NaN", "infinity", "minus infinity")

# One of each way to write a value: as it is, in fewer bits, as a level of a scale, as a sign of a
# magnitude, as an entry of a codebook, as a factor, rotated.
CODECS = (
    "none",
    "fp16",
    "bf16",
    "fp8",
    "int8",
    "nf4",
    "qsgd",
    "stc",
    "topk(density=0.3)",
    "efsign",
    "codebook",
    "powersgd",
    "lowrank",
    "eden",
    "rd",
)


def model() -> Arrays:
    rng = np.random.default_rng(5)
    return {"w": rng.standard_normal((3, 2)).astype("f4"), "b": np.ones(1, np.float32)}


def learned() -> Arrays:
    rng = np.random.default_rng(6)
    return {k: (v + 0.1 * rng.standard_normal(v.shape)).astype("f4") for k, v in model().items()}


def written(value: float, codec: str) -> bytes:
    """Return ``value`` as the codec writes floats; what does not fit is the largest that does."""
    if codec == "bf16":
        return np.float32(value).tobytes()[2:]
    if codec == "fp16":
        with np.errstate(over="ignore"):
            half = np.float16(value)
        return (half if np.isfinite(half) == np.isfinite(value) else np.float16(65504)).tobytes()
    return np.float32(value).tobytes()


def places(frames: Sequence[Frame], width: int) -> list[tuple[int, int]]:
    """Return every place in the bodies, by frame and offset, where ``width`` bytes fit."""
    return [
        (index, offset)
        for index, frame in enumerate(frames)
        for offset in range(len(frame.body) - width + 1)
    ]


def mutant(update: Update, number: int, codec: str) -> Update:
    """Return the update with one special value written over one place of a body.

    Numbers from 0 on walk through all values and then through all places.
    """
    value = written(list(SPECIAL.values())[number % len(SPECIAL)], codec)
    found = places(update.frames, len(value))
    index, offset = found[number // len(SPECIAL) % len(found)]
    frames = list(update.frames)
    body = bytes(frames[index].body)
    body = body[:offset] + value + body[offset + len(value) :]
    frames[index] = replace(frames[index], body=body)
    return replace(update, frames=frames)


def mutants(codec: str) -> int:
    """Return how many mutants there are of what a client sends."""
    manifest = Manifest.of(model())
    plan, change = preset(codec).plan(manifest), learned()
    if not plan.lossless:
        change = {k: v - model()[k] for k, v in change.items()}
    frames, _ = encode_frames(manifest, plan, change, np.random.default_rng(0))
    return len(SPECIAL) * len(places(frames, len(written(0.0, codec))))


def grid_of(tamper: Callable[[Message, int], None], clients: int = 4) -> InlineGrid:
    """Return a grid of clients that answer with ``learned``; ``tamper`` is with all but one."""
    app = ClientApp(mods=[sent_by(tamper), press()])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        arrays = ArrayRecord({k: Array(v) for k, v in learned().items()})
        metrics = MetricRecord({"num-examples": 10, "loss": 1.0, "list": [1.0, 2.0]})
        return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)

    return InlineGrid(app, clients)


def sent_by(tamper: Callable[[Message, int], None]) -> Mod:
    """Return a mod outside ``press()`` for all clients but the first."""

    def mod(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        reply = call_next(message, context)
        partition = int(context.node_config["partition-id"])
        if partition and message.metadata.message_type == "train":
            tamper(reply, partition - 1)
        return reply

    return mod


def in_body(codec: str) -> Callable[[Message, int], None]:
    def tamper(reply: Message, number: int) -> None:
        blob = MessageCarrier().detach(reply.content, "arrays", None)
        assert blob is not None
        update = mutant(unpack(blob, Manifest.of(model())), number, codec)
        MessageCarrier().attach(reply.content, "arrays", pack(update))

    return tamper


def check(result: Result) -> None:
    """The model is finite, and as near to what the honest client learned as clipping keeps it."""
    arrays = {name: array.numpy() for name, array in result.arrays.items()}
    assert arrays
    change = {name: arrays[name] - value for name, value in model().items()}
    length = np.sqrt(sum(float((v.astype("f8") ** 2).sum()) for v in change.values()))
    honest = np.sqrt(sum(float(((v - model()[k]) ** 2).sum()) for k, v in learned().items()))
    assert length <= 4 * honest


@pytest.mark.parametrize("codec", CODECS)
def test_in_every_place_of_a_body(codec: str, start: Start) -> None:
    grid = grid_of(in_body(codec), clients=1 + mutants(codec))
    strategy = Pressed(
        FedAvg(fraction_evaluate=0.0), uplink=codec, first="none", seed=0, defence="clip"
    )
    result = start(strategy, grid=grid, rounds=1, arrays=model())
    check(result)
    errors = {r.error for r in strategy.rejections}
    assert errors <= {"NonFiniteError", "FormatError", "TruncatedError", "LimitError", "Outlier"}
    assert errors & {"NonFiniteError", "FormatError"}


@pytest.mark.parametrize("name", SPECIAL)
@pytest.mark.parametrize("metric", ["num-examples", "loss", "list"])
def test_in_metrics(metric: str, name: str, start: Start) -> None:
    def tamper(reply: Message, number: int) -> None:
        value = SPECIAL[name]
        metrics = dict(reply.content.metric_records["metrics"])
        reply.content["metrics"] = MetricRecord(
            {**metrics, metric: [1.0, value] if metric == "list" else value}
        )

    strategy = Pressed(
        FedAvg(fraction_evaluate=0.0), uplink="int8", first="none", seed=0, defence="examples+clip"
    )
    result = start(strategy, grid=grid_of(tamper), rounds=1, arrays=model())
    check(result)
    (shown,) = result.train_metrics_clientapp.values()
    assert all(np.isfinite(value).all() for value in shown.values())
    if name in NOT_FINITE:
        assert {(r.error, r.field) for r in strategy.rejections} == {
            ("FormatError", f"metrics[{metric!r}]")
        }
        assert len(strategy.rejections) == 3


@pytest.mark.parametrize("name", SPECIAL)
def test_in_what_a_client_says_of_its_uplink(name: str, start: Start) -> None:
    def tamper(reply: Message, number: int) -> None:
        receipt = Receipt.read(reply.content)
        replace(receipt, uplink_rate=SPECIAL[name]).write(reply.content)

    strategy = Pressed(FedAvg(fraction_evaluate=0.0), uplink="int8", first="none", seed=0)
    check(start(strategy, grid=grid_of(tamper), rounds=2, arrays=model()))
