"""Damaged messages of an exchange: answers in words, no hang, nothing left behind."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from flowerpress.compression import WireError
from flowerpress.protos import exchange_pb2 as pb
from flowerpress.protos.exchange import (
    LARGEST_MESSAGE,
    BlobClaim,
    Code,
    ExchangeMessage,
    Kind,
    pack_exchange,
    unpack_exchange,
)
from flowerpress.protos.exchange_terms import ExchangeTerms
from tests.wire.exchanging import RUN, chunk, exchanging, noise

BLOB = noise(5_000)
CLAIM = BlobClaim.of(BLOB, 7)
NUMBERS = (0, 1, 127, 128, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, (1 << 63) - 1, (1 << 64) - 1)
MESSAGES = (
    ExchangeMessage(Kind.UPLOAD, claim=CLAIM, run=RUN, round=1, client=1, token=bytes(16)),
    ExchangeMessage(Kind.DOWNLOAD, 1000, claim=CLAIM, run=RUN, round=1, client=1, token=bytes(16)),
    ExchangeMessage(Kind.CHUNK, 70_000, BLOB),
    ExchangeMessage(Kind.ACK, 70_000),
    ExchangeMessage(Kind.DONE, 5_000),
    ExchangeMessage(Kind.ERROR, code=int(Code.BUSY), text="come again"),
)


def mutant(rng: random.Random, packed: bytes) -> bytes:
    """Flip, cut, repeat, insert or replace a few bytes."""
    data = bytearray(packed)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(data) + 1)
        end = min(len(data), at + rng.choice((1, 1, 2, 8, 64)))
        choice = rng.randrange(5)
        if choice == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif choice == 1:
            del data[at:end]
        elif choice == 2:
            data[at:at] = data[at:end]
        elif choice == 3:
            data[at:at] = rng.randbytes(rng.choice((1, 4, 40)))
        else:
            data[at:end] = rng.randbytes(end - at)
    return bytes(data)


def read(data: bytes) -> ExchangeMessage | WireError:
    try:
        return unpack_exchange(data)
    except WireError as error:
        return error


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.kind.name)
def test_what_was_packed_is_unpacked(message: ExchangeMessage) -> None:
    assert unpack_exchange(pack_exchange(message)) == message


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.kind.name)
def test_five_thousand_mutants_are_messages_or_errors(message: ExchangeMessage) -> None:
    rng = random.Random(message.kind)
    faults = Counter[str]()
    for _ in range(5_000):
        found = read(mutant(rng, pack_exchange(message)))
        if isinstance(found, WireError):
            faults[found.field] += 1
        else:
            # Whatever is taken for a message is one: it is packed and unpacked to the same.
            assert unpack_exchange(pack_exchange(found)) == found
    assert 100 < faults.total() < 5_000
    assert "" not in faults


@pytest.mark.parametrize("number", NUMBERS)
def test_every_number_at_its_edges(number: int) -> None:
    for field in ("offset", "client", "run", "code", "kind", "round"):
        if number >= 1 << (64 if field in ("offset", "client", "run") else 31):
            continue
        given: dict[str, Any] = {"kind": pb.Exchange.ACK, field: number}
        parsed = pb.Exchange(**given)
        found = read(parsed.SerializeToString())
        if isinstance(found, WireError):
            assert found.field in ("message.kind", "claim.digest")
        else:
            assert getattr(found, field) == number


def test_claims_and_terms_that_nobody_writes() -> None:
    for claim in (
        b"\xff",
        b"",
        bytes(65),
        pb.BlobClaim(length=5, digest=bytes(31)).SerializeToString(),
        pb.BlobClaim(length=0, digest=bytes(32)).SerializeToString(),
    ):
        with pytest.raises(WireError, match="claim"):
            BlobClaim.unpack(claim)
    good: dict[str, Any] = {"address": "host:1", "token": b"t", "patience": 1.0}
    for field, value in (
        ("address", ""),
        ("address", "h" * 513),
        ("token", bytes(65)),
        ("certificate", bytes((1 << 16) + 1)),
        ("patience", 0.0),
        ("patience", -1.0),
        ("patience", float("nan")),
        ("patience", float("inf")),
        ("patience", 1e300),  # more than any clock waits for
    ):
        data = pb.ExchangeTerms(**{**good, field: value}).SerializeToString()
        with pytest.raises(WireError, match=f"exchange.{field}"):
            ExchangeTerms.unpack(data)
    with pytest.raises(WireError, match="exchange"):
        ExchangeTerms.unpack(b"\xff\xff")


def test_longer_than_a_message_may_be() -> None:
    with pytest.raises(WireError, match="1048576 are allowed"):
        unpack_exchange(bytes(LARGEST_MESSAGE + 1))
    with exchanging() as served, served.raw() as stream:
        assert stream.refused(bytes(LARGEST_MESSAGE + 1)) is Code.LIMIT


def test_streams_of_mutants_end_in_words_and_leave_nothing_behind() -> None:
    rng = random.Random(1)
    codes: Counter[Code | str] = Counter()
    with exchanging() as served:
        offered = served.offer(BLOB)
        for turn in range(2_000):
            with served.raw() as stream:
                kind = (Kind.UPLOAD, Kind.DOWNLOAD)[turn % 2]
                opening = stream.opening(kind, CLAIM if kind is Kind.UPLOAD else offered)
                follow = pack_exchange(
                    chunk(BLOB, 0, 2_000)
                    if kind is Kind.UPLOAD
                    else ExchangeMessage(Kind.ACK, len(BLOB))
                )
                if turn % 4 < 2:
                    stream.send(mutant(rng, opening), follow)
                else:
                    stream.send(opening, mutant(rng, follow), follow)
                answers = stream.finish()
                said = [answer for answer in answers if answer.kind is Kind.ERROR]
                assert len(said) <= 1
                assert all(answer.text for answer in said)
                codes.update(Code(answer.code) for answer in said)
                codes["no error"] += not said
            assert served.service._room.held <= len(BLOB)
        assert Code.INTERNAL not in codes
        assert {Code.MALFORMED, Code.TOKEN, Code.OFFSET} <= codes.keys()
        assert codes["no error"] < 1_000
        # Whatever was said to it before, the service takes a good update.
        with served.link() as link:
            assert served.take(link.upload(BLOB, 1 << 63)) == BLOB
        assert served.service._room.held == 0
