"""One direction of a link: bytes queue for it, take their time, and arrive a latency later."""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import Callable

__all__ = ["Lane"]

_BURST = 0.05
"""Seconds' worth of bytes that a link which was idle takes at once. Sleeping is exact to about a
millisecond, on a busy machine to some: without it what was overslept would be lost to the rate."""

_LARGEST_CHUNK = 1 << 16
_SMALLEST_CHUNK = 64

_MOST_FLYING = 1 << 20
"""Bytes under way on a link that does not limit its rate."""

_BUFFERED = 0.25
"""Seconds' worth of bytes in a socket's buffer: enough that the link never waits for a sender."""

_BUFFERS = (16 << 10, 1 << 18)
"""Where a window has never room for all that a sender handed over at once, Linux holds the receiver
for dead when gRPC's keepalive time is over, though bytes move all the time."""

_SEGMENT = 1448
"""Bytes of a TCP segment on a network with Ethernet's frames. Loopback's own are 64 KiB, and a
window smaller than a segment makes TCP wait for timers."""


class Lane:
    """What all connections of a link share in one direction: a token bucket, and a latency.

    Args:
        rate: bits a second; infinite for a link that does not limit.
        latency: seconds from the end of sending to arrival.
    """

    def __init__(self, rate: float, latency: float) -> None:
        self._rate = rate
        self._latency = latency
        self._free = -math.inf
        share = rate * _BURST / 8
        self._chunk = int(max(_SMALLEST_CHUNK, min(_LARGEST_CHUNK, share)))
        low, high = _BUFFERS
        self._buffer = int(max(low, min(high, rate * _BUFFERED / 8)))
        flying = min(rate * latency / 8, _MOST_FLYING) if latency else 0
        self._depth = 2 + math.ceil(flying / self._chunk)

    def receive_at(self, end: socket.socket) -> None:
        """Bound what waits for the link in the proxy's own socket; before it is connected."""
        if self._rate != math.inf:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._buffer)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, _SEGMENT)

    def send_at(self, end: socket.socket) -> None:
        """Bound what arrived and waits for the receiver."""
        if self._rate != math.inf:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._buffer)

    async def carry(
        self, source: socket.socket, sink: socket.socket, count: Callable[[int], None]
    ) -> None:
        """Move bytes from ``source`` to ``sink`` until it ends, and end the other.

        ``count`` is told of bytes that the link carried, and raises OSError where it broke.

        Raises:
            OSError: that, or one of the two was reset (in a group).
        """
        flying: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(self._depth)
        async with asyncio.TaskGroup() as both:
            both.create_task(self._send(source, flying, count))
            both.create_task(_arrive(flying, sink))

    async def _send(
        self,
        source: socket.socket,
        flying: asyncio.Queue[tuple[float, bytes]],
        count: Callable[[int], None],
    ) -> None:
        loop = asyncio.get_running_loop()
        data = b"-"
        while data:
            data = await loop.sock_recv(source, self._chunk)
            await self._transmit(len(data))
            count(len(data))
            await flying.put((loop.time() + self._latency, data))

    async def _transmit(self, size: int) -> None:
        if self._rate == math.inf:
            return
        now = asyncio.get_running_loop().time()
        self._free = max(self._free, now - _BURST) + 8 * size / self._rate
        await asyncio.sleep(max(0.0, self._free - now))


async def _arrive(flying: asyncio.Queue[tuple[float, bytes]], sink: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    while True:
        due, data = await flying.get()
        await asyncio.sleep(max(0.0, due - loop.time()))
        if not data:
            sink.shutdown(socket.SHUT_WR)
            return
        await loop.sock_sendall(sink, data)
