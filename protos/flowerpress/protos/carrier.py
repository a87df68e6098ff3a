"""How one blob gets across beside a Flower message.

Flower's message stays the control plane either way: instructions, metrics, receipts. A carrier
only decides where the bytes of the blob go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Self

from flwr.app import Array, ArrayRecord, RecordDict

from flowerpress.compression import FormatError, LimitError

__all__ = ["BLOB_STYPE", "EXCHANGE", "Carrier", "Carriers", "MessageCarrier"]

BLOB_STYPE = "flowerpress.update/1"
EXCHANGE = "grpc"
"""Name of the carrier with a gRPC service of its own."""

_BLOB = "blob"


class Carrier(Protocol):
    """Moves one blob each way between the server and one client, in one phase of a round.

    ``terms`` is what the client must know to build its end; a server puts it into the instruction.
    """

    terms: bytes

    def attach(self, content: RecordDict, key: str, blob: bytes, sequence: int = 0) -> bytes:
        """Send ``blob`` beside ``content``, in place of the record ``key``.

        Returns:
            The claim that the other end needs to ``detach`` it; empty: it needs none.
        """

    def detach(
        self, content: RecordDict, key: str, limit: int | None, claim: bytes = b""
    ) -> bytes | None:
        """Return the blob that came with ``content``, or None if there is none.

        Raises:
            WireError: what stands under ``key`` is no blob, is not what ``claim`` says, or exceeds
                ``limit`` bytes.
        """


class Carriers(Protocol):
    """The server's side of a carrier: opens a phase of a round, with one end for each client."""

    name: str

    def open_round(
        self,
        run: int,
        number: int,
        clients: Sequence[int],
        *,
        largest: int,
        seconds: float | None,
    ) -> Mapping[int, Carrier]:
        """Begin a phase; the one before is over.

        Args:
            run: identity of the run.
            number: of the round.
            clients: who may take part.
            largest: bytes of the largest blob that a client may send; 0: none is to be sent.
            seconds: after which nothing more is taken from clients; None: as long as it is open.
        """

    def close_round(self) -> None:
        """End the phase: whatever of it did not arrive is dropped."""

    def traffic(self, number: int) -> Mapping[int, Any]:
        """Return the ``Traffic`` of each client in a round, where blobs have their own connection.

        Empty where they have none.
        """

    def forget(self, before: int) -> None:
        """Forget the traffic of rounds before ``before``."""


class MessageCarrier:
    """The blob rides in the Flower message as one ``Array``: for simulation and one-port sites.

    It is the same for all clients and on both sides, and keeps nothing.
    """

    name = "message"
    terms = b""

    def attach(self, content: RecordDict, key: str, blob: bytes, sequence: int = 0) -> bytes:
        """Put ``blob`` under ``key`` as the only array of its record."""
        array = Array(dtype="uint8", shape=(len(blob),), stype=BLOB_STYPE, data=blob)
        content[key] = ArrayRecord({_BLOB: array})
        return b""

    def detach(
        self, content: RecordDict, key: str, limit: int | None, claim: bytes = b""
    ) -> bytes | None:
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

    def open_round(
        self,
        run: int,
        number: int,
        clients: Sequence[int],
        *,
        largest: int,
        seconds: float | None,
    ) -> dict[int, Self]:
        """Return this carrier for everybody."""
        return dict.fromkeys(clients, self)

    def close_round(self) -> None:
        """Do nothing: there is nothing to drop."""

    def traffic(self, number: int) -> dict[int, Any]:
        """Return nothing: Flower's messages are Flower's traffic."""
        return {}

    def forget(self, before: int) -> None:
        """Do nothing: there is nothing to forget."""
