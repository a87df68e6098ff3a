"""What passed on one connection, and what gRPC says that it moved there."""

from __future__ import annotations

from dataclasses import dataclass, field

from flowerpress.server.wire.records import APPLICATION, Records

__all__ = ["FRAME", "PREFIX", "Connection", "OneWay"]

FRAME = 16_384
"""Most bytes of an HTTP/2 frame where nobody asks for more (RFC 9113, section 6.5.2)."""

PREFIX = 5
"""Bytes before each message of a gRPC stream: a flag and its length."""

_LARGE = 1024


@dataclass
class OneWay:
    """One direction of a connection.

    Attributes:
        wire: bytes of TCP payload.
        handshake: of them, those of TLS before the first byte of an application.
        records: TLS records after the handshake; 0 without TLS.
        messages: messages of gRPC streams.
        large: those of them that carry more than names and numbers.
        message: their bytes.
        frames: HTTP/2 frames that they were cut into.
    """

    wire: int = 0
    handshake: int = 0
    records: int = 0
    messages: int = 0
    large: int = 0
    message: int = 0
    frames: int = 0

    def carried(self, size: int) -> None:
        """Note a message of ``size`` bytes."""
        self.messages += 1
        self.large += size >= _LARGE
        self.message += size
        self.frames += -(-(size + PREFIX) // FRAME)


@dataclass
class Connection:
    """One connection through the front.

    ``streams`` counts the gRPC streams on it. ``broken``: it was reset, so that bytes may have
    crossed which no message was made of.
    """

    up: OneWay = field(default_factory=OneWay)
    down: OneWay = field(default_factory=OneWay)
    streams: int = 0
    open: bool = True
    broken: bool = False
    _up_records: Records = field(default_factory=Records, repr=False)
    _down_records: Records = field(default_factory=Records, repr=False)
    _tickets: bool = field(default=False, repr=False)

    def sent_up(self, data: bytes) -> None:
        """Count what the client sent."""
        for record in self._up_records.read(data):
            if record.kind != APPLICATION:
                continue
            if self.up.handshake:
                self.up.records += 1
            else:
                # Its first record with a cipher is its Finished, which answers all that the server
                # has to say before (RFC 8446, section 2).
                self.up.handshake = record.end
                self.down.handshake = self.down.wire
        self.up.wire += len(data)

    def sent_down(self, data: bytes) -> None:
        """Count what the service sent."""
        for record in self._down_records.read(data):
            if record.kind != APPLICATION or not self.up.handshake:
                continue
            if self._tickets:
                self.down.records += 1
            else:
                # gRPC's TLS answers the Finished with tickets for other sessions, in one record.
                self._tickets = True
                self.down.handshake += record.size
        self.down.wire += len(data)
