"""The counting front and its ledger, before a real gRPC port, with TLS and without."""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from typing import Any, Self

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowerpress.server.wire import Connection, Front, ledger
from flowerpress.server.wire.records import Records
from flowerpress.simulations.linkproxy import LinkProxy
from tests.wire.splitting import certificate

METHOD = "/flowerpress.test/Move"
OPTIONS = [
    ("grpc.max_receive_message_length", 1 << 21),
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 2 << 20),
    ("grpc.use_local_subchannel_pool", 1),
]


class Service:
    """Takes chunks and acknowledges each, or sends so many and is acknowledged, behind a front."""

    def __init__(self, certificates: tuple[bytes, bytes] | None) -> None:
        self.certificates = certificates
        self.connections: list[Connection] = []
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self.thread.start()
        self.do(self.start())
        return self

    def __exit__(self, *_: object) -> None:
        self.do(self.server.stop(0.0))
        self.do(self.front.stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    def do(self, what: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(what, self.loop).result()

    async def start(self) -> None:
        self.server = grpc.aio.server(options=OPTIONS)
        handler = grpc.stream_stream_rpc_method_handler(self.serve)
        name, _, method = METHOD.strip("/").partition("/")
        generic = grpc.method_handlers_generic_handler(name, {method: handler})
        self.server.add_generic_rpc_handlers((generic,))
        if self.certificates is None:
            port = self.server.add_insecure_port("127.0.0.1:0")
        else:
            credentials = grpc.ssl_server_credentials([self.certificates])
            port = self.server.add_secure_port("127.0.0.1:0", credentials)
        await self.server.start()
        self.front = Front(most=8, patience=60.0)
        self.port = await self.front.start("127.0.0.1:0", port)

    async def serve(self, _: Any, context: Any) -> None:
        connection = self.front.of(context.peer())
        connection.streams += 1
        self.connections.append(connection)
        data = await context.read()
        while data is not grpc.aio.EOF:
            connection.up.carried(len(data))
            answer = os.urandom(data[0] << 10) if len(data) == 1 else b"12345678"
            connection.down.carried(len(answer))
            await context.write(answer)
            data = await context.read()

    def move(self, messages: list[bytes], port: int = 0) -> None:
        """Send messages, each after the answer to the one before, on a connection of their own."""
        address = f"127.0.0.1:{port or self.port}"
        if self.certificates is None:
            channel = grpc.insecure_channel(address, OPTIONS)
        else:
            credentials = grpc.ssl_channel_credentials(self.certificates[1])
            channel = grpc.secure_channel(address, credentials, OPTIONS)
        out: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        with channel:
            answers = channel.stream_stream(METHOD)(iter(out.get, None), timeout=60)
            for message in messages:
                out.put(message)
                next(answers)
            out.put(None)
            assert list(answers) == []
        while any(one.open for one in self.connections):
            time.sleep(0.01)


@pytest.fixture(scope="module", params=["plain", "tls"])
def service(request: pytest.FixtureRequest) -> Iterator[Service]:
    with Service(certificate() if request.param == "tls" else None) as made:
        yield made


@pytest.mark.parametrize(
    ("messages", "up", "down"),
    [
        ([os.urandom(24_500)], 24_500, 8),
        ([os.urandom(400_000)] * 10, 4_000_000, 80),
        ([os.urandom(8_192)] * 60, 491_520, 480),
        ([bytes([24])], 1, 24_576),
        ([bytes([250])] * 16, 16, 4_096_000),
    ],
    ids=["small-up", "large-up", "chunks-up", "small-down", "large-down"],
)
def test_items_explain_what_another_count_sees(
    service: Service, messages: list[bytes], up: int, down: int
) -> None:
    with LinkProxy(f"127.0.0.1:{service.port}") as proxy:
        service.move(messages, proxy.port)
        total = proxy.total
    connection = service.connections[-1]
    assert (connection.up.wire, connection.down.wire) == (total.up, total.down)
    assert not connection.broken
    ledgers = {
        "up": ledger("up", [connection], codec=up - 7 * (up > 7), blob=up, repeated=0),
        "down": ledger("down", [connection], codec=down - 8, blob=down, repeated=0),
    }
    for way, found in ledgers.items():
        assert found.wire == getattr(total, way)
        assert found.items["codec"] + found.items["envelope"] == (up if way == "up" else down)
        assert found.items["messages"] == 0
        # Updates of windows, none to two for each message, are the only thing that is not known.
        assert abs(found.unexplained) <= 60 + 26 * len(messages), (way, found)
    with_tls = service.certificates is not None
    assert (connection.up.handshake > 0, connection.down.handshake > 0) == (with_tls, with_tls)
    whole = sum(found.wire for found in ledgers.values())
    assert abs(sum(found.unexplained for found in ledgers.values())) < 0.01 * whole


def test_a_reset_connection_is_known_as_broken(service: Service) -> None:
    count = len(service.connections)
    with LinkProxy(f"127.0.0.1:{service.port}") as proxy:

        def cut() -> None:
            while len(service.connections) == count:
                time.sleep(0.01)
            proxy.cut(outage=60)

        threading.Thread(target=cut, daemon=True).start()
        with pytest.raises(grpc.RpcError):
            service.move([b"x" * 100] * 10_000, proxy.port)
    while service.connections[-1].open:
        time.sleep(0.01)
    assert service.connections[-1].broken


def test_one_connection_too_many_is_closed() -> None:
    async def crowded() -> bytes:
        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        front = Front(most=2, patience=60.0)
        port = await front.start("127.0.0.1:0", server.sockets[0].getsockname()[1])
        first = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        await asyncio.sleep(0.1)
        third, _ = await asyncio.open_connection("127.0.0.1", port)
        try:
            return await third.read()
        except ConnectionResetError:
            return b""
        finally:
            for _, writer in first:
                writer.close()
            await front.stop()
            server.close()

    assert asyncio.run(crowded()) == b""


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def connected(service: Handler, patience: float) -> AsyncIterator[Front]:
    """Yield a front with a client connected, which does nothing; stop the front before it goes."""
    server = await asyncio.start_server(service, "127.0.0.1", 0)
    front = Front(most=2, patience=patience)
    port = await front.start("127.0.0.1:0", server.sockets[0].getsockname()[1])
    with socket.create_connection(("127.0.0.1", port)):
        while not front._tasks:
            await asyncio.sleep(0.01)
        yield front
        await front.stop()
    server.close()


@pytest.mark.parametrize("reads", [True, False], ids=["that does not close", "that does not read"])
def test_a_client_is_not_kept_for_ever(reads: bool, caplog: pytest.LogCaptureFixture) -> None:
    async def alone() -> None:
        async def service(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                writer.write(bytes(0 if reads else 32 << 20))
                await writer.drain()
            writer.close()

        async with connected(service, patience=0.2) as front, asyncio.timeout(10):
            while front._tasks:
                await asyncio.sleep(0.01)

    asyncio.run(alone())
    assert caplog.text == ""


def test_stopping_with_connections_open_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def stopped() -> None:
        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        async with connected(silent, patience=60.0):
            pass

    asyncio.run(stopped())
    assert caplog.text == ""


RECORD = st.tuples(st.sampled_from([20, 21, 22, 23]), st.binary(max_size=300))


@given(st.lists(RECORD, min_size=1), st.lists(st.integers(1, 50)), st.randoms())
def test_records_are_found_however_the_stream_is_cut(
    records: list[tuple[int, bytes]], cuts: list[int], rng: Any
) -> None:
    records[0] = (22, records[0][1])
    stream = b"".join(bytes([kind, 3, 3]) + len(body).to_bytes(2) + body for kind, body in records)
    reader, found, at = Records(), [], 0
    while at < len(stream):
        size = rng.choice(cuts) if cuts else len(stream)
        found += reader.read(stream[at : at + size])
        at += size
    assert [(one.kind, one.size) for one in found] == [(k, 5 + len(b)) for k, b in records]
    assert found[-1].end == len(stream)


@given(st.binary(min_size=1, max_size=2000), st.integers(1, 100))
def test_anything_may_come(data: bytes, step: int) -> None:
    reader, connection = Records(), Connection()
    for at in range(0, len(data), step):
        reader.read(data[at : at + step])
        connection.sent_up(data[at : at + step])
        connection.sent_down(data[at : at + step])
    assert (connection.up.wire, connection.down.wire) == (len(data), len(data))
