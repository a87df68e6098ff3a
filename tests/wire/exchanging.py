"""Exchange services with a round open, links to them, and streams without any manners."""

from __future__ import annotations

import contextlib
import queue
import random
from collections.abc import Iterator, Sequence
from typing import Any, Self

import grpc
from flwr.app import RecordDict

from flowerpress.client.exchange import ExchangeLink
from flowerpress.protos.exchange import (
    METHOD,
    BlobClaim,
    Code,
    ExchangeMessage,
    Kind,
    channel_options,
    pack_exchange,
    unpack_exchange,
)
from flowerpress.protos.exchange_terms import ExchangeTerms
from flowerpress.server.exchange import ExchangeService

RUN, LARGEST = 11, 4 << 20


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


class Served:
    """A service with a round open to some clients, and the server's end for each of them."""

    def __init__(self, service: ExchangeService) -> None:
        self.service = service

    def open(
        self,
        number: int = 1,
        clients: Sequence[int] = (1, 2),
        largest: int = LARGEST,
        seconds: float | None = None,
    ) -> Self:
        self.number = number
        self.ends = self.service.open_round(RUN, number, clients, largest=largest, seconds=seconds)
        return self

    def terms(self, client: int = 1) -> ExchangeTerms:
        return ExchangeTerms.unpack(self.ends[client].terms)

    def offer(self, blob: bytes, client: int = 1, version: int = 1) -> BlobClaim:
        claim = self.ends[client].attach(RecordDict(), "arrays", blob, version)
        return BlobClaim.unpack(claim)

    def take(self, claim: BlobClaim, client: int = 1, limit: int | None = None) -> bytes:
        blob = self.ends[client].detach(RecordDict(), "arrays", limit, claim.pack())
        assert blob is not None
        return blob

    def link(self, client: int = 1, **given: Any) -> ExchangeLink:
        terms = self.terms(client)
        given = {"address": terms.address, "token": terms.token, "tls": terms.tls, **given}
        given = {"run": RUN, "round": self.number, "client": client, "patience": 60.0, **given}
        return ExchangeLink(given.pop("address"), **given)

    def raw(self, seat: int = 1, **given: Any) -> Raw:
        """Return a stream of client ``seat``, but for what is ``given``."""
        who = {"run": RUN, "round": self.number, "client": seat}
        return Raw(self.terms(seat).address, {**who, "token": self.terms(seat).token, **given})


@contextlib.contextmanager
def exchanging(**given: Any) -> Iterator[Served]:
    """Yield a service on this machine, with round 1 open to clients 1 and 2."""
    with ExchangeService(**given) as service:
        yield Served(service).open()


class Raw:
    """A stream on which is sent what is given."""

    def __init__(self, address: str, who: dict[str, Any]) -> None:
        self._who = who
        self._channel = grpc.insecure_channel(address, channel_options())
        self._out: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        call = self._channel.stream_stream(METHOD)
        self._answers = call(iter(self._out.get, None), timeout=20)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._out.put(None)
        self._answers.cancel()
        self._channel.close()

    def opening(self, kind: Kind, claim: BlobClaim, offset: int = 0) -> bytes:
        return pack_exchange(ExchangeMessage(kind, offset, claim=claim, **self._who))

    def send(self, *messages: bytes | ExchangeMessage) -> None:
        for each in messages:
            self._out.put(each if isinstance(each, bytes) else pack_exchange(each))

    def ask(self, *messages: bytes | ExchangeMessage) -> ExchangeMessage:
        """Send, and return the next answer."""
        self.send(*messages)
        return unpack_exchange(next(self._answers))

    def refused(self, *messages: bytes | ExchangeMessage) -> Code:
        """Send; return the code of the ERROR that ends the stream, whatever comes before it."""
        self.send(*messages)
        for answer in self._answers:
            message = unpack_exchange(answer)
            if message.kind is Kind.ERROR:
                assert message.text
                assert list(self._answers) == []
                return Code(message.code)
        raise AssertionError("the stream ended without a word")

    def finish(self) -> list[ExchangeMessage]:
        """Send nothing more; return what still comes."""
        self._out.put(None)
        return [unpack_exchange(answer) for answer in self._answers]


def chunk(blob: bytes, start: int, end: int) -> ExchangeMessage:
    return ExchangeMessage(Kind.CHUNK, start, blob[start:end])
