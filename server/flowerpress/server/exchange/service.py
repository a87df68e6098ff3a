"""The exchange service: blobs of a run up and down, beside Flower, in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc

from flowerpress.protos.carrier import EXCHANGE
from flowerpress.protos.exchange import METHOD, BlobClaim, channel_options
from flowerpress.protos.exchange_terms import ExchangeTerms
from flowerpress.server.exchange.carrier import ClientExchange
from flowerpress.server.exchange.descriptors import affordable
from flowerpress.server.exchange.rounds import Rounds
from flowerpress.server.exchange.spool import Room
from flowerpress.server.exchange.streams import Streams
from flowerpress.server.traffic import Traffic
from flowerpress.server.wire import Front

__all__ = ["ExchangeLimits", "ExchangeService"]

_T = TypeVar("_T")

_CONNECTIONS = 4
"""For each stream: a connection that broke may take a while to be known as such."""


@dataclass(frozen=True)
class ExchangeLimits:
    """What the service allows; nothing is allocated because a client claims it.

    ``streams``: at the same time. ``spooled``: bytes of all uploads together that wait to be taken.
    ``memory``: bytes of an upload that stay in memory; what is more goes to a temporary file.
    """

    streams: int = 1024
    spooled: int = 16 << 30
    memory: int = 1 << 20


class ExchangeService:
    """Serves the blobs of a run on a connection of its own: the ``grpc`` carrier's server side.

        with ExchangeService("0.0.0.0:7080", address="server.example:7080",
                             certificates=(key, chain), root=authority) as exchange:
            Pressed(FedAvg(), carrier=exchange).start(grid, arrays)

    Clients learn the address, their token and the certificate from Flower's own channel. A
    connection may break at any time: both directions go on at the last byte that arrived.

    Args:
        listen: ``host:port`` to listen on; port 0 takes a free one.
        address: ``host:port`` as clients reach it; empty: this machine, for clients on it.
        certificates: private key and certificate chain, PEM; None: no TLS, for one machine or
            behind something that has it.
        root: PEM of the authority that clients check the certificate with; None: they have it.
        patience: seconds without progress after which a client gives up.
        ttl: seconds without progress after which a stream is ended.
        limits: caps on what clients may send.
        secret: from which tokens are made, at most 64 bytes; with the same one, tokens outlive the
            service. Empty: random.
        folder: of temporary files; None: the system's.
    """

    name = EXCHANGE

    def __init__(
        self,
        listen: str = "127.0.0.1:0",
        *,
        address: str = "",
        certificates: tuple[bytes, bytes] | None = None,
        root: bytes | None = None,
        patience: float = 120.0,
        ttl: float = 60.0,
        limits: ExchangeLimits | None = None,
        secret: bytes = b"",
        folder: Path | None = None,
    ) -> None:
        self.address = address
        self.limits = limits or ExchangeLimits()
        self._listen = listen
        self._certificates = certificates
        self._root = root or b""
        self._patience = patience
        self._room = Room(self.limits.spooled, self.limits.memory, folder)
        self._rounds = Rounds(secret, self._room)
        self._front = Front(affordable(_CONNECTIONS * self.limits.streams), ttl)
        self._streams = Streams(self._front, self._rounds, self.limits.streams, ttl)
        self._ttl = ttl
        self._offered: tuple[bytes, BlobClaim] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._server: Any = None

    def __enter__(self) -> Self:
        self.serve()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    # Rounds, for the strategy

    def open_round(
        self,
        run: int,
        number: int,
        clients: Sequence[int],
        *,
        largest: int,
        seconds: float | None,
    ) -> dict[int, ClientExchange]:
        """Begin a phase; see ``Carriers.open_round``."""
        self._offered = None

        def begin() -> dict[int, bytes]:
            self._streams.end_all()
            return self._rounds.open(run, number, clients, largest, seconds)

        return {
            client: ClientExchange(
                ExchangeTerms(
                    self.address,
                    token,
                    self._certificates is not None,
                    self._root,
                    self._patience,
                ).pack(),
                partial(self._offer, client),
                partial(self._take, client),
            )
            for client, token in self._do(begin).items()
        }

    def close_round(self) -> None:
        """End the phase; what was uploaded and not taken is dropped."""
        self._offered = None

        def finish() -> None:
            self._streams.end_all()
            self._rounds.close()

        self._do(finish)

    def traffic(self, number: int) -> dict[int, Traffic]:
        """Return what each client moved in a round: payload, messages, and bytes on the wire.

        Kinds are ``blob`` and, downwards, ``repeated``: what was sent again after a connection
        broke. Upwards nothing is counted twice, because what was cut off did not arrive.
        """
        return self._do(lambda: deepcopy(self._rounds.traffic.get(number, {})))

    def forget(self, before: int) -> None:
        """Forget the traffic of rounds before ``before``."""
        self._do(lambda: self._rounds.forget(before))

    def _offer(self, client: int, blob: bytes, sequence: int) -> BlobClaim:
        # Clients of one version are offered the same object: its digest is computed once.
        if self._offered is None or self._offered[0] is not blob:
            self._offered = blob, BlobClaim.of(blob, sequence)
        claim = self._offered[1]
        self._do(lambda: self._rounds.offer(client, claim, blob))
        return claim

    def _take(self, client: int, claim: BlobClaim, limit: int | None) -> bytes:
        return self._do(lambda: self._rounds.take(client, claim, limit))

    # The thread

    def serve(self) -> int:
        """Listen, and return the port.

        Raises:
            OSError: the address cannot be listened on.
        """
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="exchange", daemon=True)
        self._thread.start()
        try:
            port = self._run(self._start())
        except BaseException:
            self.stop()
            raise
        self.address = self.address or f"127.0.0.1:{port}"
        return port

    def stop(self, grace: float = 1.0) -> None:
        """End all streams after ``grace`` seconds, and stop listening."""
        loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return
        if self._server is not None:
            self._run(self._server.stop(grace))
            self._run(self._front.stop())
            self._server = None
        self._do(self._rounds.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
        self._loop = self._thread = None

    async def _start(self) -> int:
        server = grpc.aio.server(
            options=[
                *channel_options(),
                ("grpc.server_handshake_timeout_ms", 20_000),
                ("grpc.max_connection_idle_ms", int(1000 * self._ttl)),
            ],
            # One more stream than is allowed is told so, and those that end have time to.
            maximum_concurrent_rpcs=2 * self.limits.streams,
        )
        handler = grpc.stream_stream_rpc_method_handler(self._streams.serve)
        service, _, method = METHOD.strip("/").partition("/")
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(service, {method: handler}),)
        )
        if self._certificates is None:
            inner = server.add_insecure_port("127.0.0.1:0")
        else:
            credentials = grpc.ssl_server_credentials([self._certificates])
            inner = server.add_secure_port("127.0.0.1:0", credentials)
        await server.start()
        self._server = server
        try:
            return await self._front.start(self._listen, inner)
        except OSError as error:
            raise OSError(f"cannot listen on {self._listen}: {error}") from error

    def _run(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def _do(self, function: Callable[[], _T]) -> _T:
        """Call ``function`` where all state is: in the service's thread while there is one."""
        if self._loop is None:
            return function()

        async def called() -> _T:
            return function()

        return self._run(called())
