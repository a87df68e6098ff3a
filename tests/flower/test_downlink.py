"""The downlink: what clients hold is what the server thinks they hold, to the bit."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable, Mod
from flwr.serverapp.strategy import FedAvg, Result
from numpy.typing import NDArray

from flowerpress.client import press
from flowerpress.client.held import Held, apply
from flowerpress.compression import ConfigError, Manifest, SequenceError, model_digest, preset
from flowerpress.protos import Instruction, MessageCarrier, Receipt, Status, join_updates
from flowerpress.server import Broadcast, Pressed, StreamingGrid
from flowerpress.simulations.engines.grid import server_identity
from flowerpress.simulations.engines.inline import InlineGrid

Start = Callable[..., Result]
Arrays = dict[str, NDArray[Any]]


def broadcast(downlink: str, first: str = "fp16") -> Broadcast:
    return Broadcast(9, preset(downlink), preset(first), preset("lossless"), seed=1)


def walk(rounds: int) -> Iterable[Arrays]:
    rng = np.random.default_rng(0)
    model: Arrays = {
        "w": rng.standard_normal((40, 50)).astype(np.float32),
        "steps": np.zeros((), np.int64),
    }
    for number in range(rounds):
        yield {k: v.copy() for k, v in model.items()}
        model["w"] += 0.1 * rng.standard_normal((40, 50)).astype(np.float32)
        model["steps"] = np.asarray(number, np.int64)


def deliver(server: Broadcast, held: Held | None) -> Held | None:
    start, updates = server.path(held.version if held else 0)
    instruction = Instruction(
        run=server.run,
        round=1,
        client=2,
        version=server.version,
        held=start,
        digest=server.digest,
        watermark=0,
        arrays="arrays",
        uplink="none",
        carrier="message",
        seed=0,
    )
    blob = join_updates([u.blob for u in updates]) if updates else None
    return apply(held, instruction, blob)


@pytest.mark.parametrize("codec", ["none", "lossless", "fp16", "int8", "stc", "topk", "qsgd"])
def test_every_client_holds_the_servers_copy_whenever_it_comes(codec: str) -> None:
    server = broadcast(codec)
    always: Held | None = None
    sometimes: Held | None = None
    for number, model in enumerate(walk(12), start=1):
        server.publish(number, model)
        always = deliver(server, always)
        assert always is not None
        assert always.version == server.version == number
        for name, array in always.model.items():
            np.testing.assert_array_equal(array.numpy(), server.held[name], strict=True)
        if number % 5 == 0:
            sometimes = deliver(server, sometimes)
        fresh = deliver(server, None)
        assert fresh is not None
        for client in (fresh, sometimes if number % 5 == 0 else fresh):
            assert client is not None
            assert client.digest == server.digest
    assert server.digest == model_digest(server.manifest, server.held)


@pytest.mark.parametrize("codec", ["int8", "stc(density=0.05)", "topk(density=0.05)", "fedzip"])
def test_what_the_codec_lost_is_sent_later(codec: str) -> None:
    server = broadcast(codec)
    *_, last = walk(5)
    for number, model in enumerate(walk(5), start=1):
        server.publish(number, model)
    lag = [float(np.abs(last["w"] - server.held["w"]).max())]
    for number in range(6, 200):
        # The same target with a counter that moves, so that there is something to publish.
        server.publish(number, {"w": last["w"], "steps": np.asarray(number, np.int64)})
        lag.append(float(np.abs(last["w"] - server.held["w"]).max()))
    assert lag[-1] < 0.1 * lag[0] + 1e-6


def test_a_first_model_that_does_not_fit_fp16_is_sent_whole() -> None:
    server = broadcast("stc")
    model: Arrays = {"w": np.array([1e6, 1.0], np.float32)}
    server.publish(1, model)
    client = deliver(server, None)
    assert client is not None
    np.testing.assert_array_equal(client.model["w"].numpy(), model["w"])


def test_an_unchanged_model_costs_nothing() -> None:
    server = broadcast("stc")
    (model,) = walk(1)
    server.publish(1, model)
    client = deliver(server, None)
    server.publish(2, model)
    assert server.version == 1
    assert client is not None
    assert server.path(client.version) == (1, [])
    assert deliver(server, client) is client


def test_a_client_far_behind_gets_the_shorter_of_chain_and_model() -> None:
    server = broadcast("int8")
    for number, model in enumerate(walk(30), start=1):
        server.publish(number, model)
    sizes = {}
    for version in range(30):
        start, updates = server.path(version)
        assert start in (0, version)
        sizes[version] = sum(len(u.blob) for u in updates)
    assert sizes[29] < sizes[28] < sizes[25] <= sizes[0]
    # Whatever it missed, a client is never sent more than twice the model.
    assert max(sizes.values()) < 2 * server.manifest.nbytes


def test_a_client_that_already_has_some_of_the_chain_skips_it() -> None:
    server = broadcast("stc")
    models = list(walk(4))
    server.publish(1, models[0])
    client = deliver(server, None)
    server.publish(2, models[1])
    ahead = deliver(server, client)
    server.publish(3, models[2])
    assert client is not None
    assert ahead is not None
    start, updates = server.path(client.version)
    instruction = Instruction(
        9, 3, 2, server.version, start, server.digest, 0, "arrays", "none", "message", 0
    )
    both = [apply(c, instruction, join_updates([u.blob for u in updates])) for c in (client, ahead)]
    assert [c.digest for c in both if c is not None] == [server.digest] * 2


def test_a_downlink_longer_than_any_is_refused_before_it_is_looked_at(start: Start) -> None:
    rounds: list[str] = []

    def hostile(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        if context.node_config["partition-id"]:
            return call_next(message, context)
        if len(rounds) == 1:
            MessageCarrier().attach(message.content, "arrays", bytes(8 << 20))
        reply = call_next(message, context)
        receipt = Receipt.read(reply.content)
        rounds.append(receipt.error or receipt.status.name)
        return reply

    strategy = Pressed(FedAvg(fraction_evaluate=0.0), uplink="stc", seed=0)
    start(strategy, [hostile, press()], clients=2, rounds=3)
    assert rounds == ["OK", "LimitError", "OK"]


def test_a_downlink_for_another_copy_is_refused() -> None:
    one, two = broadcast("stc"), broadcast("stc")
    models = list(walk(3))
    one.publish(1, models[0])
    two.publish(1, models[1])
    client = deliver(one, None)
    two.publish(2, models[2])
    with pytest.raises(SequenceError, match="base"):
        deliver(two, client)


def test_a_client_that_lost_its_state_gets_a_model_within_the_round(
    start: Start, third_party: Callable[[list[Mod]], ClientApp]
) -> None:
    def forget(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        number = int(str(message.content.config_records["config"]["server-round"]))
        here = number == 3 and context.node_config["partition-id"] == 1
        if here and message.metadata.message_type == "train" and not forgotten:
            forgotten.append(number)
            context.state = RecordDict()
        return call_next(message, context)

    forgotten: list[int] = []
    strategy = Pressed(FedAvg(), uplink="stc", seed=0)
    start(strategy, grid=InlineGrid(third_party([forget, press()]), 4), rounds=4)
    assert forgotten == [3]
    assert not strategy.rejections
    assert len(strategy.meter.of(3).uplink.by_client) == 4
    down = strategy.meter.of(3).downlink.by_client
    assert max(down.values()) > 10 * min(down.values())


def test_a_client_whose_copy_went_wrong_is_sent_a_whole_model_the_next_time(
    start: Start, third_party: Callable[[list[Mod]], ClientApp]
) -> None:
    def corrupt(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        number = int(str(message.content.config_records["config"]["server-round"]))
        here = number == 2 and context.node_config["partition-id"] == 1
        if here and message.metadata.message_type == "train":
            context.state.config_records["flowerpress.state"]["digest"] = bytes(16)
        return call_next(message, context)

    strategy = Pressed(FedAvg(), uplink="stc", seed=0)
    start(strategy, grid=InlineGrid(third_party([corrupt, press()]), 4), rounds=4)
    assert [(r.round, r.error, r.field) for r in strategy.rejections] == [
        (2, "SequenceError", "digest")
    ]
    assert len(strategy.meter.of(3).uplink.by_client) == 4


def test_a_client_that_never_holds_a_model_is_named_with_the_reason(
    start: Start, third_party: Callable[[list[Mod]], ClientApp]
) -> None:
    def refuse(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        content = RecordDict()
        Receipt(Status.NEED_MODEL, 0).write(content)
        return Message(content, reply_to=message)

    strategy = Pressed(FedAvg(fraction_evaluate=0.0), uplink="stc", seed=0)
    start(strategy, grid=InlineGrid(third_party([refuse]), 2), rounds=1)
    assert {(r.error, r.message) for r in strategy.rejections} == {
        ("NEED_MODEL", "holds no model, although it was sent a whole one")
    }


@pytest.mark.parametrize("numbers", [{"seed": -1}, {"seed": 1 << 64}, {"run_id": -1}])
def test_numbers_that_no_message_holds_are_refused_at_once(numbers: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=r"it must be from 0 to 2\*\*64 - 1"):
        Pressed(FedAvg(), **numbers)  # type: ignore[arg-type]


def test_evaluation_and_the_next_training_share_one_downlink(start: Start) -> None:
    strategy = Pressed(FedAvg(), uplink="stc", seed=0)
    start(strategy, [press()], rounds=3)
    assert strategy.meter.of(2).downlink.total > 0
    by_tensor = strategy.meter.of(2).downlink.by_tensor
    assert sum(by_tensor.values()) == strategy.meter.of(2).downlink.total
    # Round 2 trains from what round 1 evaluated; only its own evaluation moves bytes down.
    assert strategy.meter.of(2).downlink.total < 2 * strategy.meter.of(2).uplink.total


def test_the_grid_asks_for_replies_in_the_order_of_sending() -> None:
    pulled: list[str] = []

    class Slow(InlineGrid):
        """Answers the second time that it is asked; never the message "1"."""

        def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
            return [str(number) for number, _ in enumerate(messages)]

        def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
            (message_id,) = message_ids
            pulled.append(message_id)
            ready = pulled.count(message_id) == 2 and message_id != "1"
            return [messages[int(message_id)]] if ready else []

    with server_identity(1):
        messages = [Message(RecordDict(), 2 + number, "train") for number in range(3)]
    replies = StreamingGrid(Slow(ClientApp(), 3)).send_and_receive(messages, timeout=0.2)
    assert not pulled  # nothing is held before it is asked for
    first = next(iter(replies))
    assert first is messages[0]
    assert pulled == ["0", "0"]
    # After the deadline each is asked once more: too few for message 2, which needs two.
    assert list(replies) == []
    assert pulled[-1] == "2"


def test_manifest_of_a_scalar_and_of_integers_survives_the_downlink() -> None:
    server = broadcast("fp16")
    model: Arrays = {
        "n": np.asarray(7, np.int64),
        "b": np.array([True, False]),
        "x": np.asarray(2, np.float32),
    }
    server.publish(1, model)
    client = deliver(server, None)
    assert client is not None
    assert Manifest.of({k: v.numpy() for k, v in client.model.items()}) == server.manifest
    assert client.model["n"].numpy() == 7
