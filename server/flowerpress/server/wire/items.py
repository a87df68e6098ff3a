"""What the bytes on a wire consist of, by constants of the protocols, and what is left over.

Nothing here is taken from the count that it explains: each item is worked out from what was sent
and from sizes in standards, or those of gRPC where it is free. So what remains says how much is not
understood.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from flowerpress.server.wire.connections import PREFIX, Connection, OneWay
from flowerpress.server.wire.records import HEADER

__all__ = ["ITEMS", "Ledger", "ledger"]

ITEMS = ("codec", "envelope", "repeated", "messages", "grpc", "http2", "tls", "handshake")
"""``codec``: bodies of tensors. ``envelope``: the update around them. ``repeated``: of both, what
crossed again after a break. ``messages``: claims, tokens, offsets, acknowledgements in protobuf.
``grpc``: five bytes before each message. ``http2``: its frames. ``tls``: its records.
``handshake``: of TLS, with certificates and tickets."""

_HEAD = 9
"""Bytes of an HTTP/2 frame's header (RFC 9113, section 4.1)."""

_UPDATE = _HEAD + 4
"""A WINDOW_UPDATE (section 6.9). gRPC sends up to two for each message that it hands over, for the
stream and for the connection, fewer where several are handed over at once, and does not say how
many. What is taken here: of a device two for each that is not small, of a service one for each, as
``tests/wire/test_audit.py`` finds it about right; the difference is left over."""

_SEALED = HEADER + 1 + 16
"""A TLS record's header, the type inside and the tag (RFC 8446, sections 5.2 and 5.3)."""

_PREFACE = 24
_SETTING = 6
_CONNECTION = {
    # The preface, five settings, the answer to the other end's (sections 3.4 and 6.5), updates.
    "up": _PREFACE + _HEAD + 5 * _SETTING + _HEAD + 3 * _UPDATE,
    "down": _HEAD + 3 * _SETTING + _HEAD + _UPDATE,
}
_STREAM = {
    # HEADERS as gRPC for Python packs them, 218 bytes with the name of its version, and an empty
    # DATA at the end.
    "up": _HEAD + 218 + _HEAD,
    # HEADERS and trailers.
    "down": _HEAD + 78 + _HEAD + 30,
}


@dataclass(frozen=True)
class Ledger:
    """Bytes of one client in one round and direction.

    Attributes:
        wire: counted at the socket.
        items: what they consist of, by ``ITEMS``.
    """

    wire: int
    items: Mapping[str, int]

    @property
    def unexplained(self) -> int:
        """What is on the wire beyond all items; negative where they say too much."""
        return self.wire - sum(self.items.values())


def ledger(
    way: str, connections: Iterable[Connection], *, codec: int, blob: int, repeated: int
) -> Ledger:
    """Return the ledger of one client in one round.

    Args:
        way: "up" or "down".
        connections: all those of the client in that round.
        codec: bytes of the bodies of tensors in the blob.
        blob: bytes of the blob that crossed, each counted once.
        repeated: bytes of it that crossed again.
    """
    # A blob that broke off is not told apart.
    codec = min(codec, blob)
    connections = list(connections)
    moved = [_ways(connection, way) for connection in connections]
    streams = sum(connection.streams for connection in connections)
    http2 = len(connections) * _CONNECTION[way] + streams * _STREAM[way]
    for this, other in moved:
        updates = 2 * other.large if way == "up" else other.messages
        http2 += _HEAD * this.frames + _UPDATE * updates
    items = {
        "codec": codec,
        "envelope": blob - codec,
        "repeated": repeated,
        "messages": sum(this.message for this, _ in moved) - blob - repeated,
        "grpc": sum(PREFIX * this.messages for this, _ in moved),
        "http2": http2,
        "tls": sum(_SEALED * this.records for this, _ in moved),
        "handshake": sum(this.handshake for this, _ in moved),
    }
    return Ledger(sum(this.wire for this, _ in moved), items)


def _ways(connection: Connection, way: str) -> tuple[OneWay, OneWay]:
    ways = connection.up, connection.down
    return ways if way == "up" else ways[::-1]
