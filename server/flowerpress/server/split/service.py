"""The split service: streams of features in, gradients or predictions out.

One thread per stream answers its messages one at a time, so a client has at most one step in the
making, and gRPC's flow control holds back whoever sends more. Threads and not asyncio: a step is a
call into torch that would block an event loop, so asyncio would hand each one to a thread and take
the result back; benchmarks/split_service.py measures both ways of answering.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hmac import compare_digest
from logging import getLogger

import grpc

from flowerpress.compression.features import Tables
from flowerpress.protos.split import (
    HELLO,
    METHOD,
    SESSION,
    Code,
    Kind,
    SplitLimits,
    SplitMessage,
    channel_options,
    client_token,
    pack_split,
    unpack_split,
)
from flowerpress.server.split.desk import Desk, Refusal, refusal_of
from flowerpress.server.split.reports import ClientReport, RoundReport, Traffic
from flowerpress.server.split.sessions import Seat, Session, Sessions
from flowerpress.server.split.tails import Tails

__all__ = ["SplitService"]

_log = getLogger(__name__)

_MOST_REFUSED = 32  # refusals in a row that end a stream
_TURN = 2.0  # seconds that an OPEN waits for its turn before the client is told to ask again


class SplitService:
    """Serves the server's part of a split network.

        service = SplitService(Copies(cut.server, make_optimizer), run=1)
        service.publish(cut.bottleneck.tables(1))
        port = service.serve("0.0.0.0:7070", certificates=(key, chain))

    Predictions are served at all times, to whoever has ``token``; steps of training only between
    ``begin_round`` and ``end_round``, to that round's clients.

    Args:
        tails: the module, and whose copy of it a client trains.
        run: identity of the run; messages of another are refused.
        token: admits to predictions; empty: anyone.
        features: codec that clients are to use where there are no tables.
        gradients: codec of gradients, both ways, and of what the last layers on devices take.
        mode: ``vanilla``, or ``u``: the last layers and the labels stay on the devices.
        limits: caps on what clients may send.
        seed: of the stochastic codecs.
        ttl: seconds after which a silent stream is ended.
        cut: what the cut is called; a client that names another is refused.

    Raises:
        ConfigError: an unknown codec.
    """

    def __init__(
        self,
        tails: Tails,
        *,
        run: int,
        token: bytes = b"",
        features: str = "none",
        gradients: str = "int8(stochastic=true)",
        mode: str = "vanilla",
        limits: SplitLimits | None = None,
        seed: int = 0,
        ttl: float = 300.0,
        cut: str = "",
    ) -> None:
        self.run, self.tails = run, tails
        self.limits = limits or SplitLimits()
        self._token = token
        self._desk = Desk(tails, features, gradients, mode, self.limits, seed, cut, ttl)
        self._sessions = Sessions(self.limits.clients, ttl)
        self._ttl = ttl
        self._round, self._secret = 0, b""
        self._seats: dict[int, Seat] = {}
        self._lock = threading.Lock()
        self._server: grpc.Server | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._stopped = threading.Event()

    def publish(self, tables: Tables) -> None:
        """Code features with ``tables`` from now on; clients with older ones are told."""
        self._desk.tables = tables

    def begin_round(self, number: int, clients: Sequence[int], secret: bytes) -> dict[int, bytes]:
        """Open a round to ``clients`` and return the token of each.

        A client's streams must name the round and its own token, which ``secret`` (1 to 64 bytes
        that nobody can guess) is needed to make.
        """
        self._close_seats()
        self.tails.begin(list(clients))
        with self._lock:
            self._round, self._secret = number, secret
            self._seats = {client: Seat(client, number) for client in clients}
        return {client: client_token(secret, client) for client in clients}

    def end_round(self, counted: Sequence[int] | None = None) -> RoundReport:
        """Close the round and settle the module, from the clients that count (None: all).

        A client's weight is the number of samples that it trained on.
        """
        reports: dict[int, ClientReport] = {}
        traffic: dict[int, Traffic] = {}
        weights = {}
        for client, seat in self._close_seats().items():
            reports[client], traffic[client] = seat.report, seat.traffic
            if seat.report.samples and (counted is None or client in counted):
                weights[client] = float(seat.report.samples)
        self.tails.end(weights)
        return RoundReport(reports, traffic)

    def _close_seats(self) -> dict[int, Seat]:
        with self._lock:
            seats, self._seats, self._secret = self._seats, {}, b""
        self.tails.close()
        for seat in seats.values():
            with seat.lock:  # a step in the making is finished, and none follows
                seat.closed = True
                seat.forget()
        return seats

    def serve(
        self, address: str = "127.0.0.1:0", *, certificates: tuple[bytes, bytes] | None = None
    ) -> int:
        """Listen on ``address`` and return the port.

        Args:
            address: ``host:port``; port 0 takes a free one.
            certificates: private key and certificate chain, PEM; None: no TLS, for one machine or
                behind something that has it.

        Raises:
            OSError: the address cannot be listened on.
        """
        # One more stream than is allowed can say so.
        self._pool = pool = ThreadPoolExecutor(self.limits.clients + 8, "split")
        options = channel_options(self.limits)
        most = self.limits.clients + 8
        server = grpc.server(pool, options=options, maximum_concurrent_rpcs=most)
        handler = grpc.stream_stream_rpc_method_handler(self._exchange)
        service, _, method = METHOD.strip("/").partition("/")
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(service, {method: handler}),)
        )
        try:
            if certificates is None:
                port = server.add_insecure_port(address)
            else:
                credentials = grpc.ssl_server_credentials([certificates])
                port = server.add_secure_port(address, credentials)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {address}: {error}") from error
        if port == 0:
            raise OSError(f"cannot listen on {address}")
        server.start()
        self._server = server
        self._stopped.clear()
        threading.Thread(target=self._sweep, daemon=True, name="split-sweep").start()
        return int(port)

    def stop(self, grace: float = 1.0) -> None:
        """End all streams after ``grace`` seconds, and stop listening."""
        self._stopped.set()
        if self._server is not None:
            self._server.stop(grace).wait()
            self._server = None
        if self._pool is not None:
            self._pool.shutdown(wait=False)
            self._pool = None

    def _sweep(self) -> None:
        while not self._stopped.wait(min(self._ttl / 4, 30.0)):
            self._sessions.sweep()
            with self._lock:
                seats = list(self._seats.values())
            for seat in seats:
                seat.rest(self._ttl)

    # One stream

    def _exchange(
        self, requests: Iterator[bytes], context: grpc.ServicerContext
    ) -> Iterator[bytes]:
        session = Session(secrets.token_bytes(SESSION), context.cancel)
        if not self._sessions.add(session):
            busy = f"{self.limits.clients} clients are connected already"
            yield pack_split(self._refused(Refusal(Code.BUSY, busy), 0), HELLO)
            return
        refused = 0
        try:
            for data in requests:
                session.seen = time.monotonic()
                first = session.seat is None
                if session.seat is None:
                    reply, key = self._admit(data, session), HELLO
                else:
                    reply, key = self._answer(data, session, session.seat), session.key
                packed = pack_split(reply, key)
                if session.largest and len(packed) > session.largest:
                    long = Refusal(Code.LIMIT, f"the answer has {len(packed)} bytes")
                    reply = self._refused(long, reply.step)
                    packed = pack_split(reply, key)
                if session.seat is not None:
                    _count_down(session.seat, reply, len(packed))
                yield packed
                refused = refused + 1 if reply.kind is Kind.ERROR else 0
                if refused == (1 if first else _MOST_REFUSED):
                    return
        finally:
            self._sessions.remove(session)

    def _admit(self, data: bytes, session: Session) -> SplitMessage:
        try:
            opened = unpack_split(data, HELLO, self.limits)
            if opened.kind is not Kind.OPEN:
                raise Refusal(Code.MALFORMED, "a stream begins with OPEN")
            seat = self._seat(opened)
            ack = self._desk.welcome(session.key, opened, seat)
            if seat.round:
                self._enter(seat, opened, session)
            else:
                seat.holder = session
            seat.traffic.up.record(len(data))
            session.seat, session.largest = seat, opened.largest
            if seat.round:
                self._sessions.train(session, seat)
            return replace(ack, step=seat.done)
        except Exception as error:  # noqa: BLE001 - all of it is for the client, in words
            return self._refused(error, 0)

    def _seat(self, opened: SplitMessage) -> Seat:
        """Return the client's seat in the round, or one for predictions only."""
        if opened.run != self.run:
            raise Refusal(Code.ROUND, "this service belongs to another run")
        if not opened.round:
            if not compare_digest(opened.token, self._token):
                raise Refusal(Code.TOKEN, "the token is not the one that admits to predictions")
            return Seat(opened.client, 0)
        with self._lock:
            seat = self._seats.get(opened.client)
            # A wrong token tells nothing of who takes part.
            own = client_token(self._secret, opened.client) if self._secret else b""
            if not own or not compare_digest(opened.token, own):
                raise Refusal(Code.TOKEN, "not this client's token in the round under way")
            if seat is None or opened.round != self._round:
                raise Refusal(Code.ROUND, f"not a client of round {opened.round}")
        return seat

    def _enter(self, seat: Seat, opened: SplitMessage, session: Session) -> None:
        with seat.lock:
            if seat.closed:
                raise Refusal(Code.ROUND, "the round is over")
            anew = opened.restart or not seat.entered
            done = 0 if anew else seat.done
            # The last answer may have been lost on its way, but not more than that.
            if opened.step not in (done, done - 1):
                raise Refusal(
                    Code.UNKNOWN_STEP,
                    f"the client has seen step {opened.step} and the server {done}",
                )
            if anew:
                # An answer must come before the client takes the stream for dead.
                self.tails.enter(seat.client, min(_TURN, opened.patience / 4 or _TURN))
                seat.begin()
            seat.holder, seat.heard = session, time.monotonic()

    def _answer(self, data: bytes, session: Session, seat: Seat) -> SplitMessage:
        step = 0
        try:
            message = unpack_split(data, session.key, self.limits)
            step = message.step
            return self._desk.answer(message, seat, len(data), session)
        except Exception as error:  # noqa: BLE001 - as above
            return self._refused(error, step)

    def _refused(self, error: Exception, step: int) -> SplitMessage:
        refusal = refusal_of(error)
        if refusal.code is Code.INTERNAL:
            _log.error("split service: a step failed", exc_info=error)
        return SplitMessage(Kind.ERROR, step=step, code=int(refusal.code), text=refusal.text)


def _count_down(seat: Seat, reply: SplitMessage, size: int) -> None:
    kind = {
        Kind.GRADIENT: "gradients",
        Kind.TAIL_INPUT: "tail inputs",
        Kind.PREDICTION: "predictions",
    }.get(reply.kind, "others")
    seat.traffic.down.record(
        size, 4 * reply.elements, **{kind: len(reply.payload), "tables": len(reply.tables)}
    )
