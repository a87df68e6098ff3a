"""The proxy: listens, relays every connection over one link, breaks it when told, and counts."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import struct
import threading
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import Literal, Self

from flowerpress.compression.errors import ConfigError
from flowerpress.protos.addresses import split_address
from flowerpress.simulations.linkproxy.cuts import Cut
from flowerpress.simulations.linkproxy.lane import Lane

__all__ = ["Carried", "LinkProxy"]

_Way = Literal["up", "down"]


@dataclass
class Carried:
    """Bytes of TCP payload that the link carried, of one connection or of all.

    What was lost when the link broke is in it: it crossed, or began to.

    Attributes:
        up: from the client.
        down: from the service.
        open: the connection is there.
        cut: it ended because the link broke, or because the service was not there.
    """

    up: int = 0
    down: int = 0
    open: bool = False
    cut: bool = False


class LinkProxy:
    """A link in front of a TCP service, in a thread of its own while the context lasts.

    All connections share the link, as those of one device do. Buffers of the proxy's own sockets
    are a fraction of a second (16 KiB at least), so that a sender feels the rate.

    Args:
        target: ``host:port`` of the service; may be set again, for connections to come.
        up: bits a second from clients to the service; None for no limit.
        down: the other way.
        latency: seconds that a byte is under way, each way.
        cuts: breaks, in this order; may be endless.
        listen: ``host:port`` to listen on; port 0 takes a free one.

    Raises:
        ConfigError: an address that is not one or cannot be listened on (the latter when the
            context begins), a rate or a latency out of range.
    """

    def __init__(
        self,
        target: str,
        *,
        up: float | None = None,
        down: float | None = None,
        latency: float = 0.0,
        cuts: Iterable[Cut] = (),
        listen: str = "127.0.0.1:0",
    ) -> None:
        for name, rate in (("up", up), ("down", down)):
            if rate is not None and not rate > 0:
                raise ConfigError(f"{name} of a link is {rate} bits a second; it must be above 0")
        if not 0 <= latency < math.inf:
            raise ConfigError(f"latency of a link is {latency} s; it must be 0 or more")
        split_address(target)
        self.target = target
        self.cuts = 0
        self.refused = 0
        self._listen = split_address(listen)
        self._up = Lane(math.inf if up is None else up, latency)
        self._down = Lane(math.inf if down is None else down, latency)
        self._planned = iter(cuts)
        self._timer: asyncio.TimerHandle | None = None
        self._left: dict[_Way, float] = {}
        self._outage = 0.0
        self._dark_until = -math.inf
        self._carried: list[Carried] = []
        self._open: dict[asyncio.Task[None], Carried] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="link proxy", daemon=True)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._listener.getsockname()[1])

    @property
    def address(self) -> str:
        """``host:port`` for clients."""
        host = self._listen[0]
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    @property
    def counts(self) -> list[Carried]:
        """What each connection moved, in the order in which they came."""
        return [replace(one) for one in self._carried]

    @property
    def total(self) -> Carried:
        """What all connections moved."""
        counts = self.counts
        return Carried(
            sum(one.up for one in counts),
            sum(one.down for one in counts),
            any(one.open for one in counts),
            any(one.cut for one in counts),
        )

    def cut(self, outage: float = 0.0) -> None:
        """Break the link now, for ``outage`` seconds; returns when it is broken."""
        done = threading.Event()

        def on_loop() -> None:
            self._break(outage)
            done.set()

        self._loop.call_soon_threadsafe(on_loop)
        done.wait()

    def __enter__(self) -> Self:
        self._listener = socket.socket(_family(self._listen[0]))
        try:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # Connections have the buffers of the socket that they came to.
            self._up.receive_at(self._listener)
            self._down.send_at(self._listener)
            self._listener.bind(self._listen)
            self._listener.listen(128)
        except OSError as error:
            self._listener.close()
            host, port = self._listen
            raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror}") from error
        self._listener.setblocking(False)
        self._main = self._loop.create_task(self._serve())
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._main.cancel)
        self._thread.join()
        self._listener.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        with contextlib.suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._main)
        self._loop.close()

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        self._plan_next()
        try:
            while True:
                client, _ = await loop.sock_accept(self._listener)
                if loop.time() < self._dark_until:
                    self.refused += 1
                    _reset(client)
                    continue
                carried = Carried(open=True)
                self._carried.append(carried)
                task = loop.create_task(self._relay(client, carried))
                self._open[task] = carried
                task.add_done_callback(self._open.pop)
        finally:
            if self._timer is not None:
                self._timer.cancel()
            for task in self._open:
                task.cancel()
            await asyncio.gather(*self._open, return_exceptions=True)

    async def _relay(self, client: socket.socket, carried: Carried) -> None:
        loop = asyncio.get_running_loop()
        host, port = split_address(self.target)
        service = socket.socket(_family(host))
        try:
            for end in (client, service):
                end.setblocking(False)
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._down.receive_at(service)
            self._up.send_at(service)
            await loop.sock_connect(service, (host, port))
            async with asyncio.TaskGroup() as both:
                up = partial(self._passed, carried, "up")
                both.create_task(self._up.carry(client, service, up))
                down = partial(self._passed, carried, "down")
                both.create_task(self._down.carry(service, client, down))
        except* OSError:
            carried.cut = True
        finally:
            carried.open = False
            for end in (client, service):
                if carried.cut:
                    _reset(end)
                end.close()

    def _passed(self, carried: Carried, way: _Way, size: int) -> None:
        if not carried.cut:
            through = min(size, self._left[way])
            self._left[way] -= through
            if way == "up":
                carried.up += int(through)
            else:
                carried.down += int(through)
            if not self._left[way]:
                self._break(self._outage)
        if carried.cut:
            raise ConnectionResetError("the link broke")

    def _break(self, outage: float) -> None:
        self.cuts += 1
        self._dark_until = self._loop.time() + outage
        for task, carried in self._open.items():
            carried.cut = True
            task.cancel()
        self._plan_next(outage)

    def _plan_next(self, after: float = 0.0) -> None:
        if self._timer is not None:
            self._timer.cancel()
        cut = next(self._planned, None)
        self._left = {
            "up": math.inf if cut is None or cut.up is None else cut.up,
            "down": math.inf if cut is None or cut.down is None else cut.down,
        }
        self._outage = 0.0 if cut is None else cut.outage
        if cut is not None and cut.seconds is not None:
            self._timer = self._loop.call_later(after + cut.seconds, self._break, cut.outage)


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _reset(end: socket.socket) -> None:
    """Close with a reset, by which the peer knows that bytes were lost."""
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    end.close()
