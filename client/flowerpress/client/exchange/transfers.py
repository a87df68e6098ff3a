"""One blob on its way, from one connection to the next: what has arrived stays."""

from __future__ import annotations

import hashlib
import time

from flowerpress.client.exchange.errors import ExchangeRefusedError
from flowerpress.client.stream import Stream
from flowerpress.compression import ChecksumError, FormatError
from flowerpress.protos.exchange import (
    BlobClaim,
    Code,
    ExchangeMessage,
    Kind,
    pack_exchange,
    unpack_exchange,
)
from flowerpress.protos.window import SMALLEST_WINDOW, Window

__all__ = ["Arriving", "Sending", "Talk"]

# After the last message: what is still under way may arrive.
_FAREWELL = 2.0


class Talk:
    """One stream, on which this client has yet to say who it is.

    Args:
        stream: to the service.
        who: run, round, client and token, for the opening message.
        silence: seconds without a message after which the stream counts as broken.
    """

    def __init__(self, stream: Stream, who: ExchangeMessage, silence: float) -> None:
        self._stream = stream
        self._who = who
        self._silence = silence

    def open(self, kind: Kind, claim: BlobClaim, offset: int = 0) -> None:
        """Say who this is and what it is about."""
        who = self._who
        self.send(
            ExchangeMessage(
                kind,
                offset,
                claim=claim,
                run=who.run,
                round=who.round,
                client=who.client,
                token=who.token,
            )
        )

    def send(self, message: ExchangeMessage) -> None:
        """Send a message."""
        self._stream.send(pack_exchange(message))

    def receive(self, *kinds: Kind) -> ExchangeMessage:
        """Return the next message, which must be of one of ``kinds``.

        Raises:
            BrokenError: the stream ended or is silent.
            ExchangeRefusedError: the service says why it ends.
            WireError: no message of a service.
        """
        message = unpack_exchange(self._stream.receive(time.monotonic() + self._silence))
        if message.kind is Kind.ERROR:
            try:
                code = Code(message.code)
            except ValueError:
                raise FormatError("answer.code", f"is {message.code}") from None
            raise ExchangeRefusedError(code, message.text)
        if message.kind not in kinds:
            raise FormatError("answer.kind", f"is {message.kind.name}")
        return message

    def finish(self) -> None:
        """Let the last message arrive."""
        self._stream.finish(time.monotonic() + _FAREWELL)


class Sending:
    """An upload; ``arrived`` is what the service is known to have of it."""

    def __init__(self, blob: bytes, claim: BlobClaim) -> None:
        self.arrived = 0
        self._blob = memoryview(blob)
        self._claim = claim
        self._under_way: float = SMALLEST_WINDOW

    def go_on(self, talk: Talk) -> None:
        """Send what is missing.

        Raises:
            BrokenError, ExchangeRefusedError, WireError: as ``Talk.receive``.
        """
        talk.open(Kind.UPLOAD, self._claim)
        answer = talk.receive(Kind.ACK, Kind.DONE)
        if answer.offset > len(self._blob):
            raise FormatError("answer.offset", f"is {answer.offset}")
        window = Window(len(self._blob), answer.offset, self._under_way)
        while answer.kind is not Kind.DONE:
            self.arrived = window.acknowledged
            while size := window.chunk:
                piece = bytes(self._blob[window.sent : window.sent + size])
                talk.send(ExchangeMessage(Kind.CHUNK, window.sent, piece))
                window.send(size, time.monotonic())
            answer = talk.receive(Kind.ACK, Kind.DONE)
            if answer.kind is Kind.ACK:
                window.acknowledge(answer.offset, time.monotonic())
                self._under_way = window.size
        self.arrived = len(self._blob)


class Arriving:
    """A download; ``blob`` is what has arrived of it."""

    def __init__(self, claim: BlobClaim) -> None:
        self.blob = bytearray()
        self._claim = claim

    @property
    def arrived(self) -> int:
        """Bytes that are here."""
        return len(self.blob)

    def go_on(self, talk: Talk) -> None:
        """Receive what is missing.

        Raises:
            ChecksumError: all of it is here, and is not what was claimed; it is dropped.
            BrokenError, ExchangeRefusedError, WireError: as ``Talk.receive``.
        """
        talk.open(Kind.DOWNLOAD, self._claim, self.arrived)
        while self.arrived < self._claim.length:
            chunk = talk.receive(Kind.CHUNK)
            if chunk.offset != self.arrived:
                raise FormatError("answer.offset", f"is {chunk.offset}, not {self.arrived}")
            if self.arrived + len(chunk.data) > self._claim.length:
                raise FormatError("answer.data", "goes beyond the end of the blob")
            self.blob += chunk.data
            if self.arrived < self._claim.length:
                talk.send(ExchangeMessage(Kind.ACK, self.arrived))
        if hashlib.sha256(self.blob).digest() != self._claim.digest:
            self.blob.clear()
            raise ChecksumError("blob", "what arrived is not what the server claims")
        talk.send(ExchangeMessage(Kind.DONE, self.arrived))
        talk.finish()
