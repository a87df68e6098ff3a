"""A front that counts: listens where clients connect, and relays to a gRPC port of this machine.

It does not decrypt, and looks at nothing that it relays but the headers of TLS records. gRPC cannot
say what it puts on the wire, but it names the peer of each stream: that is the front's own port, by
which a stream finds its connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable

from flowerpress.protos.addresses import split_address
from flowerpress.server.wire.connections import Connection

__all__ = ["Front"]

_CHUNK = 1 << 16


class Front:
    """Counts the bytes of all connections to a port.

    Args:
        most: connections at the same time; more are closed as soon as they come.
        patience: seconds that one end may take to read what the other has sent, and a client to
            close a connection after the service has.
    """

    def __init__(self, most: int, patience: float) -> None:
        self._most = most
        self._patience = patience
        self._by_port: dict[int, Connection] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._target = 0

    async def start(self, listen: str, target: int) -> int:
        """Listen on ``listen`` for port ``target`` of this machine; return the port.

        Raises:
            ConfigError: no address.
            OSError: it cannot be listened on.
        """
        host, port = split_address(listen)
        self._target = target
        if host == "::" and socket.has_dualstack_ipv6():
            # All addresses, as gRPC means it.
            both = socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
            self._server = await asyncio.start_server(self._serve, sock=both, limit=_CHUNK)
        else:
            self._server = await asyncio.start_server(self._serve, host, port, limit=_CHUNK)
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Close all connections, and stop listening."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def of(self, peer: str) -> Connection:
        """Return the connection of a stream whose context says that ``peer`` is its peer.

        Who came past the front, from this machine, has a connection on which nothing is counted.
        """
        port = peer.rpartition(":")[2]
        known = self._by_port.get(int(port)) if port.isdigit() else None
        return Connection() if known is None else known

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._tasks) >= self._most:
            writer.transport.abort()
            return
        self._tasks.add(task)
        try:
            # Only ``stop`` cancels, and asyncio would write a traceback for each.
            with contextlib.suppress(asyncio.CancelledError):
                await self._relay(reader, writer)
        finally:
            self._tasks.discard(task)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection()
        port = 0
        ends = [writer]
        try:
            inside, out = await asyncio.open_connection("127.0.0.1", self._target, limit=_CHUNK)
            ends.append(out)
            port = int(out.get_extra_info("sockname")[1])
            self._by_port[port] = connection
            async with asyncio.TaskGroup() as both:
                up = both.create_task(self._pump(reader, out, connection.sent_up))
                await self._pump(inside, writer, connection.sent_down)
                # A client that does not close in its turn would be kept for ever.
                await asyncio.wait([up], timeout=self._patience)
                up.cancel()
        except* OSError:
            connection.broken = True
        finally:
            connection.open = False
            # Whoever was told of it keeps it.
            if self._by_port.get(port) is connection:
                del self._by_port[port]
            for end in ends:
                if connection.broken:
                    end.transport.abort()
                else:
                    end.close()

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        count: Callable[[bytes], None],
    ) -> None:
        while data := await reader.read(_CHUNK):
            count(data)
            writer.write(data)
            async with asyncio.timeout(self._patience):
                await writer.drain()
        with contextlib.suppress(OSError):
            writer.write_eof()
