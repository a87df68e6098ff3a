"""Clients that share one tail in turns: what breaks in one turn does not touch the next."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from torch import nn

from flowerpress.client.stream import BrokenError, Stream
from flowerpress.protos import split_pb2
from flowerpress.protos.split import Kind
from flowerpress.server.split import Shared, SplitService
from tests.wire.splitting import (
    Proxy,
    assert_same,
    batches,
    linked,
    momentum,
    network,
    plain,
    serving,
    train_u_shaped,
    train_vanilla,
)

DATA = {client: batches(3, client) for client in (1, 2)}


def trained(mode: str, port_for_first: Callable[[SplitService], int]) -> list[nn.Module]:
    """Train client 1, then 2, who waits from the start; return the tail and both heads."""
    _, tail, last = network()
    tails = Shared(tail if mode == "u" else nn.Sequential(tail, last), momentum)
    heads = {client: network(client)[0] for client in DATA}
    lasts = {client: network(client)[2] for client in DATA}
    waiting = threading.Event()
    with serving(tails, list(DATA), mode=mode) as service:
        ports = {1: port_for_first(service), 2: service.port}  # type: ignore[attr-defined]

        def train(client: int) -> None:
            head, data = heads[client], DATA[client]
            if client == 2:
                waiting.set()
            with linked(ports[client], client) as link:
                if mode == "u":
                    both = [*head.parameters(), *lasts[client].parameters()]
                    train_u_shaped(link, head, lasts[client], data, plain(both))
                else:
                    train_vanilla(link, head, data, plain(head.parameters()))

        second = threading.Thread(target=train, args=(2,))
        second.start()
        waiting.wait()
        train(1)
        second.join(30)
        report = service.end_round()
    assert {client: own.steps for client, own in report.clients.items()} == {1: 3, 2: 3}
    return [tails.module, *heads.values()]


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("vanilla", Kind.FEATURES), ("vanilla", Kind.CLOSE), ("u", Kind.TAIL_GRADIENT)],
)
def test_a_cut_in_one_turn_does_not_touch_the_next(
    mode: str, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trained(mode, lambda service: service.port)  # type: ignore[attr-defined]
    proxies: list[Proxy] = []
    cut = threading.Event()
    ask = Stream.ask

    def behind(service: SplitService) -> int:
        proxies.append(Proxy(service))
        return proxies[0].port

    def broken(stream: Stream, data: bytes, deadline: float) -> bytes:
        message = split_pb2.Split.FromString(data[8:])
        answer = ask(stream, data, deadline)
        # Of client 1 as it is the first to get there: the answer is lost, the step was taken.
        if message.kind == kind and message.step >= 2 and not cut.is_set():
            cut.set()
            proxies[0].cut()
            raise BrokenError("lost")
        return answer

    monkeypatch.setattr(Stream, "ask", broken)
    modules = trained(mode, behind)
    assert proxies[0].cuts == 1
    proxies[0].__exit__()
    for module, twin in zip(modules, whole, strict=True):
        assert_same(module, twin, 0.0)
