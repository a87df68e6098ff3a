"""A hundred clients that stall, on real sockets, and ten that answer: the round closes in time."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from flwr.app import Message
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import Mod
from flwr.serverapp.strategy import FedAvg, Result

from flowerpress.client import press
from flowerpress.protos import Instruction
from flowerpress.protos.exchange import BlobClaim, ExchangeMessage, Kind
from flowerpress.protos.exchange_terms import ExchangeTerms
from flowerpress.server import Pressed
from flowerpress.server.exchange import ExchangeService
from flowerpress.simulations.engines.grid import FIRST_NODE, LocalGrid, answer, node_context
from tests.wire.exchanging import Raw, chunk, noise

STALLED, HONEST, DEADLINE = 100, 10, 10.0
BLOB = noise(20_000)

Stall = Callable[[Instruction, ExitStack], None]


def half_open(instruction: Instruction, stack: ExitStack) -> None:
    """Connect, and say nothing."""
    host, _, port = ExchangeTerms.unpack(instruction.exchange).address.rpartition(":")
    stack.enter_context(socket.create_connection((host, int(port))))


def half_said(instruction: Instruction, stack: ExitStack) -> None:
    """Connect, and say half of what begins a connection."""
    host, _, port = ExchangeTerms.unpack(instruction.exchange).address.rpartition(":")
    connection = stack.enter_context(socket.create_connection((host, int(port))))
    connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00")


def raw(instruction: Instruction, stack: ExitStack) -> Raw:
    terms = ExchangeTerms.unpack(instruction.exchange)
    who = {"run": instruction.run, "round": instruction.round, "client": instruction.client}
    return stack.enter_context(Raw(terms.address, {**who, "token": terms.token}))


def half_sent(instruction: Instruction, stack: ExitStack) -> None:
    """Upload half of an update."""
    stream = raw(instruction, stack)
    opening = stream.opening(Kind.UPLOAD, BlobClaim.of(BLOB, 1))
    assert stream.ask(opening).kind is Kind.ACK
    assert stream.ask(chunk(BLOB, 0, 10_000)).offset == 10_000


def half_fetched(instruction: Instruction, stack: ExitStack) -> None:
    """Ask for the model, and acknowledge nothing of it."""
    stream = raw(instruction, stack)
    opening = stream.opening(Kind.DOWNLOAD, BlobClaim.unpack(instruction.claim))
    assert stream.ask(opening).kind is Kind.CHUNK


def all_sent(instruction: Instruction, stack: ExitStack) -> None:
    """Upload something whole, and never answer Flower."""
    stream = raw(instruction, stack)
    stream.ask(stream.opening(Kind.UPLOAD, BlobClaim.of(BLOB, 1)))
    end = chunk(BLOB, 0, len(BLOB))
    assert stream.ask(end) == ExchangeMessage(Kind.DONE, len(BLOB))


WAYS: list[Stall] = [half_sent, half_fetched, all_sent, *[half_open] * 4, *[half_said] * 3]


class CrowdGrid(LocalGrid):
    """The last ``HONEST`` nodes answer, each in a thread of its own; the others stall."""

    def __init__(self, app: ClientApp, stack: ExitStack) -> None:
        super().__init__(STALLED + HONEST, run_id=1)
        self._app = app
        self._stack = stack
        self._replies: dict[str, Message] = {}
        self._threads: list[threading.Thread] = []
        self.stalls = 0

    def _accept(self, message: Message) -> None:
        if message.metadata.dst_node_id - FIRST_NODE < STALLED:
            instruction = Instruction.read(message.content)
            assert instruction is not None
            WAYS[self.stalls % len(WAYS)](instruction, self._stack)
            self.stalls += 1
            return
        node = message.metadata.dst_node_id
        context = node_context(node, STALLED + HONEST, self._run.run_id)

        def run() -> None:
            self._replies[message.metadata.message_id] = answer(self._app, message, context)

        self._threads.append(threading.Thread(target=run))
        self._threads[-1].start()

    def _reply(self, message_id: str, patience: float | None) -> Message | None:
        return self._replies.pop(message_id, None)

    def join(self) -> None:
        """Wait for the honest ones."""
        for thread in self._threads:
            thread.join()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def test_a_hundred_that_stall_and_ten_that_answer(
    stack: ExitStack,
    start: Callable[..., Result],
    third_party: Callable[[list[Mod]], ClientApp],
) -> None:
    # The kernels that the honest ones use are loaded before the clock runs.
    start(Pressed(FedAvg(fraction_evaluate=0.0), uplink="int8"), [press()], rounds=1)
    begun: list[float] = []
    closed: list[float] = []

    class Timed(Pressed):
        def aggregate_train(self, server_round, replies):  # type: ignore[no-untyped-def]
            begun.append(time.monotonic())
            taken = super().aggregate_train(server_round, replies)
            closed.append(time.monotonic())
            return taken

    with ExchangeService(ttl=300.0) as service:
        strategy = Timed(
            FedAvg(fraction_evaluate=0.0),
            uplink="int8",
            carrier=service,
            deadline=DEADLINE,
            quorum=HONEST,
        )
        grid = CrowdGrid(third_party([press()]), stack)
        start(strategy, grid=grid, rounds=1)
        grid.join()
        # The stalled ones' streams have ended with the round, and what they sent is gone.
        assert len(service._streams) == 0
        assert service._room.held == 0
    assert closed[0] - begun[0] < DEADLINE + 5
    honest = {FIRST_NODE + number for number in range(STALLED, STALLED + HONEST)}
    assert set(strategy._intake.watermarks) == honest
    stalled = {rejection.node for rejection in strategy.rejections}
    assert stalled == {FIRST_NODE + number for number in range(STALLED)}
    assert {rejection.error for rejection in strategy.rejections} == {"NoReply"}


def test_a_reply_after_the_deadline_is_left_out(
    start: Callable[..., Result], third_party: Callable[[list[Mod]], ClientApp]
) -> None:
    late = threading.Event()

    class SlowGrid(LocalGrid):
        """Node 1 answers when the round is over."""

        def __init__(self, app: ClientApp) -> None:
            super().__init__(2, run_id=1)
            self._app = app
            self._asked: dict[str, Message] = {}
            self._contexts = [node_context(FIRST_NODE + n, 2, 1) for n in range(2)]

        def _accept(self, message: Message) -> None:
            self._asked[message.metadata.message_id] = message

        def _reply(self, message_id: str, patience: float | None) -> Message | None:
            message = self._asked[message_id]
            number = message.metadata.dst_node_id - FIRST_NODE
            if number == 1 and not late.is_set():
                return None
            return answer(self._app, self._asked.pop(message_id), self._contexts[number])

    class Later(Pressed):
        def aggregate_train(self, server_round, replies):  # type: ignore[no-untyped-def]
            taken = super().aggregate_train(server_round, replies)
            late.set()
            return taken

    strategy = Later(FedAvg(fraction_evaluate=0.0, min_train_nodes=2), uplink="int8", deadline=0.5)
    start(strategy, grid=SlowGrid(third_party([press()])), rounds=2)
    assert [(r.round, r.node, r.error) for r in strategy.rejections] == [
        (1, FIRST_NODE + 1, "NoReply")
    ]
    # It holds no model yet: its first update is that of the second round.
    assert strategy._intake.watermarks == {FIRST_NODE: 2, FIRST_NODE + 1: 1}
