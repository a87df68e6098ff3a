"""From codec to wire: three levels of bytes that add up, on real connections with TLS."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

from flowerpress.client import press
from flowerpress.server import Pressed
from flowerpress.server.exchange import ExchangeService
from flowerpress.server.wire import ITEMS, Connection
from flowerpress.simulations.audit import audit_cells, client_cells
from flowerpress.simulations.client_bytes import WIRE, client_bytes, payload_differences
from flowerpress.simulations.engines.grid import FIRST_NODE, server_identity
from flowerpress.simulations.engines.inline import InlineGrid
from flowerpress.simulations.linkproxy import Cut, LinkProxy
from flowerpress.simulations.record import RoundRecord
from tests.wire.splitting import certificate

CLIENTS, ROUNDS = 2, 3
SHAPES = {"a": (400, 500), "b": (500,), "c": (500, 100), "d": (100,)}
PARTITIONS = {FIRST_NODE + number: number for number in range(CLIENTS)}


def app() -> ClientApp:
    made = ClientApp(mods=[press()])

    @made.train()
    def train(message: Message, context: Context) -> Message:
        rng = np.random.default_rng(int(context.node_config["partition-id"]))
        arrays = {k: v.numpy() for k, v in message.content.array_records["arrays"].items()}
        new = {k: v + rng.laplace(0, 1e-3, v.shape).astype(v.dtype) for k, v in arrays.items()}
        content: dict[str, Any] = {
            "arrays": ArrayRecord({k: Array(v) for k, v in new.items()}),
            "metrics": MetricRecord({"num-examples": 1}),
        }
        return Message(RecordDict(content), reply_to=message)

    return made


def run(uplink: str, downlink: str, service: ExchangeService | None = None) -> Pressed:
    rng = np.random.default_rng(0)
    first = {k: rng.standard_normal(v).astype(np.float32) for k, v in SHAPES.items()}
    inner = FedAvg(fraction_evaluate=0.0)
    strategy = Pressed(inner, uplink=uplink, downlink=downlink, seed=1, run_id=2, carrier=service)
    grid = InlineGrid(app(), CLIENTS)
    with server_identity(grid.run.run_id):
        arrays = ArrayRecord({k: Array(v) for k, v in first.items()})
        strategy.start(grid, arrays, num_rounds=ROUNDS)
    assert strategy.rejections == []
    return strategy


def records(strategy: Pressed) -> list[RoundRecord]:
    """Return what a run's recorder writes of bytes, once written and read."""
    found = []
    for number in range(1, ROUNDS + 1):
        moved = strategy.meter.of(number)
        record = RoundRecord(
            round=number,
            seconds=1.0,
            bytes_up=moved.uplink.total,
            bytes_down=moved.downlink.total,
            up_by_tensor=dict(moved.uplink.by_tensor),
            down_by_tensor=dict(moved.downlink.by_tensor),
            client_bytes=client_bytes(moved, strategy.traffic(number), PARTITIONS),
        )
        found.append(RoundRecord.from_json(json.loads(json.dumps(record.to_json())), "test"))
    return found


@contextmanager
def exchanging(cuts: Sequence[Cut] = ()) -> Iterator[tuple[ExchangeService, LinkProxy]]:
    """Yield a service with TLS that devices reach through another count."""
    pair = certificate()
    service = ExchangeService(certificates=pair, root=pair[1], patience=30.0)
    with LinkProxy(f"127.0.0.1:{service.serve()}", cuts=cuts) as proxy:
        service.address = proxy.address
        try:
            yield service, proxy
        finally:
            service.stop()


def connections(strategy: Pressed) -> list[Connection]:
    """Return all connections, when the last of them is closed."""
    while True:
        found = [
            connection
            for number in range(1, ROUNDS + 1)
            for client in strategy.traffic(number).values()
            for connection in client.connections
        ]
        if not any(one.open for one in found):
            return found
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("uplink", "downlink"), [("int8", "stc"), ("stc(density=0.01)", "int8"), ("none", "none")]
)
def test_less_than_a_hundredth_of_the_wire_is_unexplained(uplink: str, downlink: str) -> None:
    with exchanging() as (service, proxy):
        strategy = run(uplink, downlink, service)
        crossed = connections(strategy)
        made = records(strategy)
        counted = proxy.total
    # The front counts what the other count sees.
    assert sum(one.up.wire for one in crossed) == counted.up
    assert sum(one.down.wire for one in crossed) == counted.down
    assert all(one.up.handshake and one.down.handshake for one in crossed)

    wire = {"up": 0, "down": 0}
    for record in made:
        assert [one.client for one in record.client_bytes] == list(range(CLIENTS))
        for one in record.client_bytes:
            left = {}
            for way, parts in (("up", one.up), ("down", one.down)):
                assert set(parts) == {WIRE, *ITEMS}
                assert parts["repeated"] == 0
                left[way] = parts[WIRE] - sum(parts[name] for name in ITEMS)
                wire[way] += parts[WIRE]
            both = one.up[WIRE] + one.down[WIRE]
            assert sum(map(abs, left.values())) < 0.01 * both, (record.round, one)
        # The levels add up to what the strategy says that it moved.
        payload = {
            way: sum(
                getattr(one, way)["codec"] + getattr(one, way)["envelope"]
                for one in record.client_bytes
            )
            for way in ("up", "down")
        }
        assert payload == {"up": record.bytes_up, "down": record.bytes_down}
    assert wire == {"up": counted.up, "down": counted.down}


def test_both_carriers_move_the_same_payload() -> None:
    with exchanging() as (service, _):
        there = records(run("int8", "stc", service))
    here = records(run("int8", "stc"))
    assert payload_differences(here, there) == []
    for record in here:
        for one in record.client_bytes:
            assert set(one.up) == set(one.down) == {"codec", "envelope"}
    assert audit_cells(here) == client_cells(here) == []
    other = records(run("int8", "int8"))
    assert any("bytes_down" in told for told in payload_differences(here, other))
    assert payload_differences(here[:2], here) == ["2 rounds, and 3"]


def test_what_crosses_again_after_a_break_is_an_item() -> None:
    cuts = [Cut(up=150_000), Cut(down=200_000), Cut(up=100_000)]
    with exchanging(cuts) as (service, proxy):
        strategy = run("none", "none", service)
        crossed = connections(strategy)
        made = records(strategy)
        counted, broken = proxy.total, proxy.cuts
    assert broken == 3
    assert sum(one.broken for one in crossed) == 3
    assert payload_differences(made, records(run("none", "none"))) == []
    parts = [one.down for record in made for one in record.client_bytes]
    assert sum(one["repeated"] for one in parts) > 0
    # What was cut off in the middle of a message is no message, and is left over.
    for way, total in (("up", counted.up), ("down", counted.down)):
        front = sum(getattr(one, way).wire for one in crossed)
        assert abs(front - total) < 3 * (1 << 18)
    rows = {row[0]: row[1:] for row in audit_cells(made)}
    wire = [int(cell.replace(",", "")) for cell in rows["= wire"][::2]]
    listed = [name for name in rows if not name.startswith("=")]
    for at in (0, 1):
        numbers = [int(rows[name][2 * at].replace(",", "")) for name in listed]
        assert sum(numbers) == wire[at]
    assert len(client_cells(made)) == 2 * CLIENTS * ROUNDS
