"""TLS records in ciphertext: their headers stand in the open (RFC 8446, section 5.1)."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["APPLICATION", "HEADER", "Record", "Records"]

HEADER = 5
"""Bytes of a record's header: type, version, length."""

APPLICATION = 23
"""The type of every record with a cipher, in TLS 1.3."""

_HANDSHAKE = 22


@dataclass(frozen=True)
class Record:
    """A record whose header was read: its type, its bytes with the header, where it ends."""

    kind: int
    size: int
    end: int


class Records:
    """Follows the records of one direction, without reading them."""

    def __init__(self) -> None:
        self._position = 0
        self._next = 0
        self._header = b""
        self._tls: bool | None = None

    def read(self, data: bytes) -> list[Record]:
        """Return the records whose headers end in ``data``, the next bytes of the direction.

        What does not begin as TLS does has none.
        """
        if self._tls is None:
            self._tls = data[:1] == bytes([_HANDSHAKE])
        found = []
        start, self._position = self._position, self._position + len(data)
        while self._tls and self._next < self._position:
            at = max(0, self._next - start)
            self._header += data[at : at + HEADER - len(self._header)]
            if len(self._header) < HEADER:
                break
            size = HEADER + int.from_bytes(self._header[3:])
            end = self._next + size
            found.append(Record(self._header[0], size, end))
            self._next, self._header = end, b""
        return found
