"""How one blob gets across beside a Flower message.

Flower's message stays the control plane either way: instructions, metrics, receipts. A carrier
only decides where the bytes of the blob go.
"""

from __future__ import annotations

from typing import Protocol

from flwr.app import Array, ArrayRecord, RecordDict

from flowerpress.compression import FormatError, LimitError

__all__ = ["BLOB_STYPE", "Carrier", "MessageCarrier"]

BLOB_STYPE = "flowerpress.update/1"
_BLOB = "blob"


class Carrier(Protocol):
    """Moves one blob for each message and direction."""

    name: str

    def attach(self, content: RecordDict, key: str, blob: bytes) -> None:
        """Send ``blob`` with the message of ``content``, under the record name ``key``."""

    def detach(self, content: RecordDict, key: str, limit: int | None) -> bytes | None:
        """Return the blob that came with ``content``, or None if there is none.

        Raises:
            WireError: what stands under ``key`` is no blob, or exceeds ``limit`` bytes.
        """


class MessageCarrier:
    """The blob rides in the Flower message as one ``Array``: for simulation and one-port sites."""

    name = "message"

    def attach(self, content: RecordDict, key: str, blob: bytes) -> None:
        """Put ``blob`` under ``key`` as the only array of its record."""
        array = Array(dtype="uint8", shape=(len(blob),), stype=BLOB_STYPE, data=blob)
        content[key] = ArrayRecord({_BLOB: array})

    def detach(self, content: RecordDict, key: str, limit: int | None) -> bytes | None:
        """Take the blob out of the record ``key``."""
        record = content.get(key)
        if not isinstance(record, ArrayRecord):
            return None
        if list(record) != [_BLOB] or record[_BLOB].stype != BLOB_STYPE:
            raise FormatError(key, "arrays where one flowerpress blob was expected")
        blob = record[_BLOB].data
        if limit is not None and len(blob) > limit:
            raise LimitError(key, f"{len(blob)} bytes, at most {limit} are accepted")
        return blob
