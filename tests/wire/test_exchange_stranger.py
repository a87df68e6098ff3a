"""A device by somebody who has only read docs/wire-format.md and the numbers of exchange.proto.

It uses gRPC and nothing of the package: no generated code, no helpers.
"""

from __future__ import annotations

import hashlib
import queue
from collections.abc import Iterator

import grpc

from tests.wire.exchanging import RUN, exchanging, noise

UPLOAD, DOWNLOAD, CHUNK, ACK, DONE = 1, 2, 3, 4, 5
BLOB = noise(100_000)


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value) if value else b""


def fixed(field: int, value: int) -> bytes:
    return varint(field << 3 | 1) + value.to_bytes(8, "little")


def text(field: int, value: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(value)) + value if value else b""


def parsed(data: bytes) -> dict[int, int | bytes]:
    """Return the fields of a message: numbers, and whatever has a length."""
    found: dict[int, int | bytes] = {}
    at = 0

    def read() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(data):
        field, kind = divmod(read(), 8)
        value = read()
        if kind == 2:
            found[field] = data[at : at + value]
            at += value
        else:
            assert kind == 0
            found[field] = value
    return found


def opening(kind: int, token: bytes, sequence: int, offset: int = 0) -> bytes:
    claim = number(1, sequence) + number(2, len(BLOB)) + text(3, hashlib.sha256(BLOB).digest())
    who = fixed(5, RUN) + number(6, 1) + fixed(7, 1) + text(8, token)
    return number(1, kind) + number(2, offset) + text(4, claim) + who


def stream(channel: grpc.Channel) -> tuple[queue.SimpleQueue[bytes | None], Iterator[bytes]]:
    out: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    answers = channel.stream_stream("/flowerpress.v1.Exchange/Move")(iter(out.get, None))
    return out, answers


def test_a_stranger_uploads_and_downloads() -> None:
    with exchanging() as served, grpc.insecure_channel(served.service.address) as channel:
        token = served.terms().token
        out, answers = stream(channel)
        out.put(opening(UPLOAD, token, 3))
        assert parsed(next(answers)) == {1: ACK}
        for start in range(0, len(BLOB), 40_000):
            out.put(number(1, CHUNK) + number(2, start) + text(3, BLOB[start : start + 40_000]))
        assert [parsed(next(answers)) for _ in range(3)] == [
            {1: ACK, 2: 40_000},
            {1: ACK, 2: 80_000},
            {1: DONE, 2: 100_000},
        ]
        out.put(None)
        assert list(answers) == []

        claim = served.offer(BLOB, version=9)
        assert claim.digest == hashlib.sha256(BLOB).digest()
        received = bytearray(BLOB[:50_000])
        out, answers = stream(channel)
        out.put(opening(DOWNLOAD, token, 9, len(received)))
        while len(received) < len(BLOB):
            found = parsed(next(answers))
            assert (found[1], found[2]) == (CHUNK, len(received))
            assert isinstance(found[3], bytes)
            received += found[3]
            last = len(received) == len(BLOB)
            out.put(number(1, DONE if last else ACK) + number(2, len(received)))
        out.put(None)
        assert list(answers) == []
        assert received == BLOB


def test_a_stranger_is_refused_in_words() -> None:
    with exchanging() as served, grpc.insecure_channel(served.service.address) as channel:
        out, answers = stream(channel)
        out.put(opening(UPLOAD, bytes(16), 3))
        assert parsed(next(answers)) == {
            1: 6,
            9: 2,
            10: b"not this client's token in that round",
        }
        assert list(answers) == []
