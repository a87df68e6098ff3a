"""Blobs on a connection of their own: the same bytes and models as in Flower's messages."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest
from flwr.app import ArrayRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable, Mod
from flwr.serverapp.strategy import FedAdam, FedAvg, FedMedian, Result, Strategy

from flowerpress.client import press
from flowerpress.compression import ConfigError
from flowerpress.protos import Instruction
from flowerpress.protos.exchange_terms import ExchangeTerms
from flowerpress.server import Pressed
from flowerpress.server.exchange import ExchangeService
from flowerpress.simulations.engines.grid import FIRST_NODE
from flowerpress.simulations.engines.inline import InlineGrid

RunStrategy = Callable[..., Result]
MakeApp = Callable[[list[Mod]], ClientApp]


def model(result: Result) -> dict[str, bytes]:
    return {name: array.numpy().tobytes() for name, array in result.arrays.items()}


def moved(strategy: Pressed) -> dict[int, Any]:
    return {number: (sent.uplink, sent.downlink) for number, sent in strategy.meter.rounds.items()}


@pytest.mark.parametrize(
    ("make", "codecs"),
    [
        (FedAdam, {"uplink": "stc", "downlink": "int8"}),
        (FedMedian, {"uplink": "rd", "downlink": "stc"}),
        (FedAvg, {"uplink": "none"}),
    ],
)
def test_both_carriers_move_the_same_bytes_and_end_with_the_same_model(
    make: Callable[[], Strategy], codecs: dict[str, Any], start: RunStrategy
) -> None:
    usual = Pressed(make(), seed=5, run_id=9, **codecs)
    expected = start(usual, [press()])

    def without_arrays(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        assert not message.content.array_records
        reply = call_next(message, context)
        assert not reply.content.array_records
        return reply

    with ExchangeService() as service:
        strategy = Pressed(make(), seed=5, run_id=9, carrier=service, **codecs)
        result = start(strategy, [without_arrays, press()])
        traffic = {number: service.traffic(number) for number in (1, 2, 3)}
    assert strategy.rejections == usual.rejections == []
    assert model(result) == model(expected)
    assert moved(strategy) == moved(usual)
    for number, clients in traffic.items():
        up, down = moved(usual)[number]
        assert {c: t.up.payload for c, t in clients.items()} == up.by_client
        assert {c: t.down.payload for c, t in clients.items() if t.down.payload} == {
            c: size for c, size in down.by_client.items() if size
        }


def test_a_client_that_lost_its_model_fetches_a_whole_one(
    start: RunStrategy, first_model: dict[str, Any]
) -> None:
    def forget(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        config = message.content.config_records["config"]
        if config["server-round"] == 2 and context.node_config["partition-id"] == 1:
            context.state = RecordDict()
        return call_next(message, context)

    raw = sum(array.nbytes for array in first_model.values())
    with ExchangeService() as service:
        strategy = Pressed(FedAvg(), seed=5, carrier=service)
        start(strategy, [forget, press()])
        again = service.traffic(2)
    assert strategy.rejections == []
    sizes = {client: traffic.down.payload for client, traffic in again.items()}
    assert sizes.pop(FIRST_NODE + 1) > raw / 2
    assert max(sizes.values()) < raw / 2


def test_a_device_that_cannot_reach_the_exchange_says_so_and_sends_it_later(
    start: RunStrategy,
) -> None:
    def cut_off(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        instruction = Instruction.read(message.content)
        assert instruction is not None
        trains = message.metadata.message_type == "train"
        if instruction.round == 2 and context.node_config["partition-id"] == 1 and trains:
            terms = ExchangeTerms.unpack(instruction.exchange)
            terms = replace(terms, address="127.0.0.1:1", patience=0.2)
            # It holds the model from evaluating it: only the way up is cut.
            assert not instruction.claim
            replace(instruction, exchange=terms.pack()).write(message.content)
        return call_next(message, context)

    with ExchangeService() as service:
        strategy = Pressed(FedAvg(), uplink="int8", seed=5, run_id=9, carrier=service)
        start(strategy, [cut_off, press()], rounds=3)
    (rejection,) = strategy.rejections
    assert (rejection.round, rejection.node) == (2, FIRST_NODE + 1)
    assert rejection.error == "ExchangeUnreachableError"
    assert "no progress with 127.0.0.1:1" in rejection.message
    # Its third update holds the second one, which never left.
    assert strategy._intake.watermarks[FIRST_NODE + 1] == 3


class Failing:
    """Clients that fail in some rounds."""

    def __init__(self, rounds: dict[int, set[int]]) -> None:
        self.rounds = rounds

    def __call__(self, message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        number = int(str(message.content.config_records["config"]["server-round"]))
        if context.node_config["partition-id"] in self.rounds.get(number, ()):
            raise RuntimeError("no power")
        return call_next(message, context)


@pytest.mark.parametrize("carrier", ["message", "grpc"])
@pytest.mark.parametrize("quorum", [3, 0.75, 0.6])
def test_too_few_updates_change_nothing(
    carrier: str, quorum: int | float, start: RunStrategy, third_party: MakeApp
) -> None:
    watermarks: list[dict[int, int]] = []
    models: list[dict[str, bytes]] = []

    class Watched(Pressed):
        def aggregate_train(
            self, server_round: int, replies: Iterable[Message]
        ) -> tuple[ArrayRecord | None, Any]:
            arrays, metrics = super().aggregate_train(server_round, replies)
            watermarks.append(dict(self._intake.watermarks))
            if arrays is not None:
                models.append({n: a.numpy().tobytes() for n, a in arrays.items()})
            return arrays, metrics

    with ExchangeService() as service:
        strategy = Watched(
            FedAvg(fraction_evaluate=0.0),
            seed=5,
            quorum=quorum,
            carrier=service if carrier == "grpc" else None,
        )
        mods: list[Mod] = [Failing({2: {1, 2}, 3: {3}}), press()]
        result = start(strategy, grid=InlineGrid(third_party(mods), 4))
    nodes = [FIRST_NODE + number for number in range(4)]
    # Two of four are too few; three are enough. Mass of the round that came to nothing came later.
    assert watermarks == [
        dict.fromkeys(nodes, 1),
        dict.fromkeys(nodes, 1),
        dict(zip(nodes, (3, 2, 2, 1), strict=True)),
    ]
    assert len(models) == 2
    assert model(result) == models[-1]


def test_odd_quorums_and_deadlines() -> None:
    for quorum in (0, -1, 0.0, 1.5, True, float("nan")):
        with pytest.raises(ConfigError, match="a count from 1 up"):
            Pressed(FedAvg(), quorum=quorum)
    for deadline in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="positive number of seconds"):
            Pressed(FedAvg(), deadline=deadline)


def test_a_carrier_that_nobody_knows(start: RunStrategy) -> None:
    with ExchangeService() as service:
        service.name = "pigeon"
        strategy = Pressed(FedAvg(fraction_evaluate=0.0), carrier=service)
        start(strategy, [press()], rounds=1)
    assert {rejection.error for rejection in strategy.rejections} == {"ConfigError"}
    assert "'pigeon', this client knows message, grpc" in strategy.rejections[0].message


def test_root_certificates_that_a_node_cannot_read(
    start: RunStrategy, third_party: MakeApp
) -> None:
    def configured(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        context.node_config["exchange-root-certificates"] = "/nowhere/authority.pem"
        return call_next(message, context)

    with ExchangeService() as service:
        strategy = Pressed(FedAvg(fraction_evaluate=0.0), carrier=service)
        start(strategy, [configured, press()], rounds=1)
    assert len(strategy.rejections) == 4
    assert "exchange-root-certificates of this node" in strategy.rejections[0].message
