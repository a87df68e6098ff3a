"""The streams of an exchange: one coroutine each, all in one thread.

asyncio and not threads: a stream waits nearly all of its time, for a thin link or for a device
that is gone, and a hundred of them must cost no more than their memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from logging import getLogger
from typing import Any

import grpc

from flowerpress.protos.exchange import (
    Code,
    ExchangeMessage,
    Kind,
    pack_exchange,
    unpack_exchange,
)
from flowerpress.protos.window import Window
from flowerpress.server.exchange.probing import Probing
from flowerpress.server.exchange.refusals import Refusal, refusal_of
from flowerpress.server.exchange.rounds import Rounds, Seat
from flowerpress.server.wire import Connection, Front

__all__ = ["Streams"]

_log = getLogger(__name__)

_INTRODUCTION = 20.0  # seconds that a stream has to say who it is
_FAREWELL = 5.0  # seconds that a last message may take


class _Stream:
    """One stream; ``seat`` is None until it has said who it is."""

    def __init__(self, context: Any, connection: Connection) -> None:
        self.seat: Seat | None = None
        self.ttl = _INTRODUCTION
        self.why: Refusal | None = None
        self._context = context
        self._connection = connection
        self._clock: asyncio.Timeout | None = None
        self._writing: asyncio.Future[None] | None = None
        self._read = 0

    def timed(self) -> asyncio.Timeout:
        """Return the clock that ends this stream when it is silent for too long."""
        self._clock = asyncio.timeout(self.ttl)
        return self._clock

    def moved(self) -> None:
        """Wind the clock up."""
        if self._clock is not None and self.why is None:
            self._clock.reschedule(asyncio.get_running_loop().time() + self.ttl)

    def end(self, why: Refusal) -> None:
        """End the stream from outside."""
        if self.why is None and self._clock is not None and not self._clock.expired():
            self.why = why
            self._clock.reschedule(asyncio.get_running_loop().time())

    async def read(self) -> ExchangeMessage | None:
        """Return the client's next message; None at its end.

        Raises:
            WireError: no message of a client.
        """
        data = await self._context.read()
        if data is grpc.aio.EOF:
            return None
        self._connection.up.carried(len(data))
        message = unpack_exchange(data)
        self._read = len(data)
        if self.seat is not None:
            self.seat.traffic.up.record(self._read, blob=len(message.data))
        self.moved()
        return message

    def take(self, seat: Seat, ttl: float) -> None:
        """Note whose stream this is, from the message that said so."""
        self.seat, self.ttl = seat, ttl
        seat.traffic.up.record(self._read)
        # A device makes a connection for each link of a round: all streams on it are its own.
        if not any(known is self._connection for known in seat.traffic.connections):
            seat.traffic.connections.append(self._connection)
        self.moved()

    async def write(self, message: ExchangeMessage, **payloads: int) -> None:
        """Send a message; count its payload by kind."""
        packed = pack_exchange(message)
        # gRPC takes one message at a time, and one that was begun cannot be taken back: when the
        # stream is ended meanwhile, the last word waits for it.
        self._writing = asyncio.ensure_future(self._context.write(packed))
        self._writing.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.shield(self._writing)
        self._connection.down.carried(len(packed))
        if self.seat is not None:
            self.seat.traffic.down.record(len(packed), **payloads)

    async def refuse(self, refusal: Refusal) -> None:
        """Say why the stream ends, to whoever still listens."""
        with contextlib.suppress(TimeoutError, grpc.RpcError):
            async with asyncio.timeout(_FAREWELL):
                if self._writing is not None:
                    await asyncio.shield(self._writing)
                await self.write(
                    ExchangeMessage(Kind.ERROR, code=int(refusal.code), text=refusal.text)
                )


class Streams:
    """Answers streams.

    Args:
        front: before the port of the streams; knows their connections.
        rounds: who may move what.
        most: streams at the same time.
        ttl: seconds without progress after which a stream is ended.
    """

    def __init__(self, front: Front, rounds: Rounds, most: int, ttl: float) -> None:
        self._front = front
        self._rounds = rounds
        self._most = most
        self._ttl = ttl
        # In the order in which they came.
        self._open: dict[_Stream, None] = {}
        self._latest: dict[tuple[int, Kind], _Stream] = {}
        self._probing = Probing()

    def __len__(self) -> int:
        return len(self._open)

    def end_all(self) -> None:
        """End all streams: their round is over."""
        for stream in self._open:
            stream.end(Refusal(Code.DEADLINE, "the round is over"))

    async def serve(self, _: Any, context: Any) -> None:
        """Answer one stream, to its end."""
        connection = self._front.of(context.peer())
        connection.streams += 1
        stream = _Stream(context, connection)
        if len(self._open) >= self._most:
            full = Refusal(Code.BUSY, f"{self._most} streams are open already")
            # Whoever says nothing must not keep out those who would.
            stranger = next((each for each in self._open if each.seat is None), None)
            if stranger is None:
                await stream.refuse(full)
                return
            stranger.end(full)
            del self._open[stranger]
        self._open[stream] = None
        try:
            async with stream.timed():
                await self._converse(stream)
            return
        except TimeoutError:
            refusal = stream.why or Refusal(Code.SILENT, "nothing has come for too long")
        except Exception as error:  # noqa: BLE001 - all of it is for the client, in words
            refusal = refusal_of(error)
            if refusal.code is Code.INTERNAL:
                _log.error("exchange: a stream failed", exc_info=error)
        finally:
            self._open.pop(stream, None)
        await stream.refuse(refusal)

    async def _converse(self, stream: _Stream) -> None:
        opened = await stream.read()
        if opened is None:
            return
        if opened.kind is Kind.PROBE:
            await self._probing.answer(stream, opened)
            return
        if opened.kind not in (Kind.UPLOAD, Kind.DOWNLOAD):
            raise Refusal(Code.MALFORMED, "a stream begins with UPLOAD, DOWNLOAD or PROBE")
        seat = self._rounds.admit(opened)
        stream.take(seat, self._ttl)
        place = (seat.client, opened.kind)
        older = self._latest.get(place)
        if older is not None:
            older.end(Refusal(Code.REPLACED, "a newer stream of this client goes on"))
        self._latest[place] = stream
        try:
            if opened.kind is Kind.UPLOAD:
                await self._receive(stream, seat, opened)
            else:
                await self._send(stream, seat, opened)
        finally:
            if self._latest.get(place) is stream:
                del self._latest[place]

    async def _receive(self, stream: _Stream, seat: Seat, opened: ExchangeMessage) -> None:
        assert opened.claim is not None
        spool = self._rounds.spool(seat, opened.claim)
        while spool is not None and not spool.finished:
            await stream.write(ExchangeMessage(Kind.ACK, spool.offset))
            message = await stream.read()
            if message is None:
                return
            if message.kind is not Kind.CHUNK:
                raise Refusal(Code.MALFORMED, f"{message.kind.name} where a chunk was due")
            self._rounds.due()
            spool.write(message.offset, message.data)
        await stream.write(ExchangeMessage(Kind.DONE, opened.claim.length))

    async def _send(self, stream: _Stream, seat: Seat, opened: ExchangeMessage) -> None:
        assert opened.claim is not None
        digest = opened.claim.digest
        blob = seat.offers.get(digest)
        if blob is None:
            raise Refusal(Code.UNKNOWN, "no such blob is meant for this client in this round")
        if opened.offset > len(blob):
            raise Refusal(Code.OFFSET, f"the blob has {len(blob)} bytes, not {opened.offset}")
        view, window = memoryview(blob), Window(len(blob), opened.offset, seat.under_way)
        while True:
            while size := window.chunk:
                start = window.sent
                again = max(0, min(size, seat.given.get(digest, 0) - start))
                piece = bytes(view[start : start + size])
                await stream.write(
                    ExchangeMessage(Kind.CHUNK, start, piece), blob=size - again, repeated=again
                )
                window.send(size, time.monotonic())
                seat.given[digest] = max(seat.given.get(digest, 0), window.sent)
            message = await stream.read()
            if message is None or message.kind is Kind.DONE:
                return
            if message.kind is not Kind.ACK:
                raise Refusal(Code.MALFORMED, f"{message.kind.name} where an ACK was due")
            window.acknowledge(message.offset, time.monotonic())
            seat.under_way = window.size
