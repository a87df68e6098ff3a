"""A client that misbehaves is left out of the round, named, and the round goes on without it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp.typing import ClientAppCallable, Mod
from flwr.serverapp.strategy import FedAvg, FedMedian, Krum, Result, Strategy
from numpy.typing import NDArray

from flowerpress.client import press
from flowerpress.compression import Frame, Manifest, encode_frames, preset
from flowerpress.protos import MessageCarrier, Update, pack, unpack
from flowerpress.server import Pressed

Start = Callable[..., Result]
Tamper = Callable[[Message], None]
Arrays = dict[str, NDArray[np.float32]]

ATTACKER = 0  # a partition


def attacker(tamper: Tamper, in_round: int = 1) -> Mod:
    """Return a mod outside ``press()`` that changes one client's reply in one round."""

    def mod(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        train = message.metadata.message_type == "train"
        number = int(str(message.content.config_records["config"]["server-round"]))
        reply = call_next(message, context)
        if context.node_config["partition-id"] == ATTACKER and train and number == in_round:
            tamper(reply)
        return reply

    return mod


def on_blob(change: Callable[[bytes], bytes]) -> Tamper:
    def tamper(reply: Message) -> None:
        blob = MessageCarrier().detach(reply.content, "arrays", None)
        assert blob is not None
        MessageCarrier().attach(reply.content, "arrays", change(blob))

    return tamper


def on_update(change: Callable[[Update], Update]) -> Tamper:
    """Change a field and seal the envelope again: the checksum is right, the content is not."""
    return on_blob(lambda blob: pack(change(unpack(blob, Manifest.of(model())))))


def model() -> Arrays:
    return {
        "conv.weight": np.zeros((8, 4, 3, 3), np.float32),
        "fc.weight": np.zeros((64, 100), np.float32),
        "fc.bias": np.zeros(64, np.float32),
    }


def flipped(blob: bytes) -> bytes:
    middle = len(blob) // 2
    return blob[:middle] + bytes([blob[middle] ^ 4]) + blob[middle + 1 :]


def with_nan(update: Update) -> Update:
    frames = list(update.frames)
    values = np.frombuffer(frames[1].body, "<f4").copy()
    values[17] = np.nan
    frames[1] = Frame(1, frames[1].codec, values.tobytes())
    return replace(update, frames=frames)


def of_another_model(update: Update) -> Update:
    other = Manifest.of({"other": np.zeros(3, np.float32)})
    frame = Frame(0, preset("none").plan(other).codecs[0], bytes(12))
    return replace(update, manifest_digest=other.digest, frames=[frame])


def with_metrics(**values: float) -> Tamper:
    def tamper(reply: Message) -> None:
        metrics = {**reply.content.metric_records["metrics"], **values}
        reply.content["metrics"] = MetricRecord(metrics)

    return tamper


def without(record: str) -> Tamper:
    def tamper(reply: Message) -> None:
        del reply.content[record]

    return tamper


def plain_arrays(reply: Message) -> None:
    reply.content["arrays"] = ArrayRecord({"w": Array(np.zeros(3, np.float32))})


def with_receipt(text: bytes, key: str = "flowerpress/1") -> Tamper:
    def tamper(reply: Message) -> None:
        reply.content["flowerpress"] = ConfigRecord({key: text})

    return tamper


ATTACKS: dict[str, tuple[Tamper, str, str]] = {
    "truncated": (on_blob(lambda b: b[:-9]), "ChecksumError", "checksum"),
    "cut to nothing": (on_blob(lambda b: b""), "TruncatedError", "update"),
    "one bit flipped": (on_blob(flipped), "ChecksumError", "checksum"),
    "foreign bytes": (on_blob(lambda b: b"\x93NUMPY" + b), "FormatError", "magic"),
    "oversize": (on_blob(lambda b: b + bytes(1 << 20)), "LimitError", "arrays"),
    "no blob": (plain_arrays, "FormatError", "arrays"),
    "nothing at all": (without("arrays"), "FormatError", "arrays"),
    "NaN": (on_update(with_nan), "NonFiniteError", "frame['fc.weight']"),
    "another model": (on_update(of_another_model), "ManifestError", "manifest_digest"),
    "another run": (on_update(lambda u: replace(u, run=u.run ^ 1)), "SequenceError", "run"),
    "another round": (on_update(lambda u: replace(u, round=7)), "SequenceError", "round"),
    "another client": (on_update(lambda u: replace(u, client=3)), "SequenceError", "client"),
    "another base": (on_update(lambda u: replace(u, base=bytes(16))), "SequenceError", "base"),
    "sequence zero": (on_update(lambda u: replace(u, sequence=0)), "SequenceError", "sequence"),
    "a tensor missing": (
        on_update(lambda u: replace(u, frames=u.frames[:2])),
        "FormatError",
        "length",
    ),
    "NaN metric": (with_metrics(loss=float("nan")), "FormatError", "metrics['loss']"),
    "huge metric": (with_metrics(loss=10**400), "FormatError", "metrics['loss']"),
    "negative count": (
        with_metrics(**{"num-examples": -5}),
        "FormatError",
        "metrics['num-examples']",
    ),
    "infinite count": (
        with_metrics(**{"num-examples": float("inf")}),
        "FormatError",
        "metrics['num-examples']",
    ),
    "overflowing count": (
        with_metrics(**{"num-examples": 1e308}),
        "FormatError",
        "metrics['num-examples']",
    ),
    "no metrics": (without("metrics"), "FormatError", "metrics"),
    "no receipt": (without("flowerpress"), "FormatError", "receipt"),
    "odd receipt": (with_receipt(b"\x08\x63"), "FormatError", "receipt.status"),
    "broken receipt": (with_receipt(b"\xff\xff"), "FormatError", "receipt"),
    "huge receipt": (with_receipt(bytes((1 << 20) + 1)), "LimitError", "receipt"),
    "receipt of another version": (
        with_receipt(b"", "flowerpress/9"),
        "FormatError",
        "receipt",
    ),
}


def arrays_of(result: Result) -> Arrays:
    return {name: array.numpy() for name, array in result.arrays.items()}


@pytest.mark.parametrize("attack", ATTACKS)
def test_the_round_is_the_mean_of_the_others(attack: str, start: Start) -> None:
    tamper, error, field = ATTACKS[attack]
    honest: list[tuple[int, Arrays]] = []

    def watch(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        reply = call_next(message, context)
        if reply.content.array_records and context.node_config["partition-id"] != ATTACKER:
            weight = int(str(reply.content.metric_records["metrics"]["num-examples"]))
            sent = {k: v.numpy() for k, v in reply.content.array_records["arrays"].items()}
            honest.append((weight, sent))
        return reply

    strategy = Pressed(FedAvg(), uplink="none", seed=0)
    result = start(strategy, [attacker(tamper), press(), watch], rounds=1)

    (rejection,) = strategy.rejections
    assert (rejection.round, rejection.error, rejection.field) == (1, error, field)
    assert len(honest) == 3
    total = sum(weight for weight, _ in honest)
    for name, array in arrays_of(result).items():
        mean = sum(weight * sent[name].astype(np.float64) for weight, sent in honest) / total
        np.testing.assert_allclose(array, mean, rtol=0, atol=1e-6)


@pytest.mark.parametrize("codec", ["stc", "qsgd"])
def test_a_client_that_was_left_out_is_back_in_the_next_round(codec: str, start: Start) -> None:
    strategy = Pressed(FedAvg(), uplink=codec, seed=0)
    start(strategy, [attacker(on_blob(flipped), in_round=2), press()], rounds=4)
    assert [r.round for r in strategy.rejections] == [2]
    assert len(strategy.meter.of(3).uplink.by_client) == 4


def test_a_replayed_update_is_applied_once(start: Start) -> None:
    kept: list[bytes] = []

    def keep(blob: bytes) -> bytes:
        kept.append(blob)
        return blob

    def replay(blob: bytes) -> bytes:
        # The old bytes, sealed as if they belonged to this round and this base.
        new = unpack(blob, Manifest.of(model()))
        old = unpack(kept[0], Manifest.of(model()))
        return pack(replace(old, round=new.round, base=new.base))

    strategy = Pressed(FedAvg(), uplink="stc", seed=0)
    mods = [attacker(on_blob(keep)), attacker(on_blob(replay), in_round=2), press()]
    start(strategy, mods, rounds=2)
    (rejection,) = strategy.rejections
    assert (rejection.error, rejection.field) == ("SequenceError", "sequence")


def other_model(reply: Message) -> None:
    del reply.content.array_records["arrays"]["fc.bias"]


def diverged(reply: Message) -> None:
    record = reply.content.array_records["arrays"]
    record["fc.weight"] = Array(np.full((64, 100), np.nan, np.float32))


def two_records(reply: Message) -> None:
    reply.content["more"] = ArrayRecord({"w": Array(np.zeros(3, np.float32))})


@pytest.mark.parametrize(
    ("tamper", "error", "words"),
    [
        (other_model, "ManifestError", "fc.bias"),
        (diverged, "EncodeError", "fc.weight"),
        (two_records, "ConfigError", "exactly one"),
    ],
)
def test_what_the_app_itself_got_wrong_is_named_too(
    tamper: Tamper, error: str, words: str, start: Start
) -> None:
    strategy = Pressed(FedAvg(), uplink="stc", seed=0)
    # Inside press(): the app's own answer is at fault, and its own client refuses to send it.
    result = start(strategy, [press(), attacker(tamper)], rounds=2)
    (rejection,) = strategy.rejections
    assert (rejection.round, rejection.error) == (1, error)
    assert words in rejection.message
    assert all(np.isfinite(array).all() for array in arrays_of(result).values())


def test_an_app_that_raises_is_left_out(start: Start) -> None:
    def crash(reply: Message) -> None:
        raise RuntimeError("out of memory")

    strategy = Pressed(FedAvg(), uplink="stc", seed=0)
    start(strategy, [press(), attacker(crash)], rounds=2)
    (rejection,) = strategy.rejections
    assert rejection.error == "ClientAppError"
    assert "out of memory" in rejection.message


@pytest.mark.parametrize("make", [FedMedian, lambda: Krum(num_malicious_nodes=1)])
def test_strategies_that_see_every_model_see_no_broken_one(
    make: Callable[[], Strategy], start: Start
) -> None:
    strategy = Pressed(make(), uplink="none", seed=0)
    result = start(strategy, [attacker(on_update(with_nan)), press()], rounds=2)
    assert [r.error for r in strategy.rejections] == ["NonFiniteError"]
    assert all(np.isfinite(array).all() for array in arrays_of(result).values())


def renamed(reply: Message) -> None:
    reply.content["mine"] = reply.content.array_records["arrays"]
    del reply.content["arrays"]


@pytest.mark.parametrize("tamper", [renamed, two_records])
@pytest.mark.parametrize("make", [FedAvg, FedMedian])
def test_other_records_than_most_clients_have_do_not_end_the_run(
    make: Callable[[], Strategy], tamper: Tamper, start: Start
) -> None:
    strategy = Pressed(make(), uplink="int8", seed=0)
    result = start(strategy, [attacker(tamper), press()], rounds=2)
    assert sorted(result.arrays) == sorted(model())
    assert all(np.isfinite(array).all() for array in arrays_of(result).values())


def huge(update: Update) -> Update:
    manifest = Manifest.of(model())
    values = {k: np.full_like(v, 3e38) for k, v in model().items()}
    frames, _ = encode_frames(manifest, preset("none").plan(manifest), values, None)
    return replace(update, frames=frames)


def test_a_change_that_overflows_the_model_never_reaches_a_robust_strategy(
    start: Start, first_model: Arrays
) -> None:
    shifted = {k: v + np.float32(1e38) for k, v in first_model.items()}
    inner = FedMedian(fraction_evaluate=0.0)
    strategy = Pressed(inner, uplink="int8", first="none", seed=0)
    result = start(strategy, [attacker(on_update(huge)), press()], rounds=1, arrays=shifted)
    (rejection,) = strategy.rejections
    assert (rejection.error, rejection.field) == ("NonFiniteError", "frame['conv.weight']")
    assert all(np.isfinite(array).all() for array in arrays_of(result).values())


def test_updates_that_overflow_leave_the_model_as_it_was(start: Start, first_model: Arrays) -> None:
    heavy = with_metrics(**{"num-examples": 1e15})
    mods = [attacker(heavy), attacker(on_update(huge)), press()]
    shifted = {k: v + np.float32(1e38) for k, v in first_model.items()}
    strategy = Pressed(FedAvg(fraction_evaluate=0.0), uplink="int8", first="none", seed=0)
    result = start(strategy, mods, rounds=1, arrays=shifted)
    assert not result.arrays


def test_a_client_with_other_metrics_does_not_end_the_run(start: Start) -> None:
    def more(reply: Message) -> None:
        reply.content["metrics"] = MetricRecord({"num-examples": 3, "loss": 1.0, "mine": 2.0})

    for make in (FedAvg, FedMedian):
        strategy: Any = Pressed(make(), uplink="int8", seed=0)
        result = start(strategy, [attacker(more), press()], rounds=1)
        assert result.arrays is not None
        assert list(result.train_metrics_clientapp[1]) == ["loss"]


def test_a_round_without_any_update_keeps_the_model(start: Start, first_model: Arrays) -> None:
    def everyone(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        return Message(RecordDict(), reply_to=message)

    strategy = Pressed(FedAvg(fraction_evaluate=0.0), uplink="stc", seed=0)
    result = start(strategy, [everyone], rounds=2, arrays=first_model)
    assert len(strategy.rejections) == 8
    assert not result.arrays
