"""The tap of the benchmark of deployments: what passes is counted by call, way, head and body."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.http_tap import HttpTap, Tally

Message = tuple[bytes, bytes]
"""Head and body, with its framing."""


def _request(call: str, body: bytes = b"") -> Message:
    fields = f"Content-Length: {len(body)}\r\n" if body else ""
    return f"POST /api/v0/fleet/{call} HTTP/1.1\r\nHost: here\r\n{fields}\r\n".encode(), body


def _answer(body: bytes) -> Message:
    return f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\n\r\n".encode(), body


_CHUNKED: Message = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"4\r\n\r\n\r\n\r\n1A\r\nabcdefghijklmnopqrstuvwxyz\r\n0\r\n\r\n",
)

_EXCHANGES = [
    (_request("activate-node", b"key"), _answer(b"")),
    (_request("pull-messages", b"\r\n\r\n"), _CHUNKED),
    (_request("push-object", b"x" * 70_000), _answer(b"ok")),
    (_request("pull-messages", b"more"), _answer(b"none")),
    (_request("get-run"), _CHUNKED),
]


def _read(end: socket.socket, size: int) -> None:
    while size:
        data = end.recv(size)
        assert data
        size -= len(data)


@contextmanager
def _tapped(exchanges: Sequence[tuple[Message, Message]]) -> Iterator[HttpTap]:
    """Move requests and their answers over one connection through a tap."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            near, _ = listener.accept()
            with near:
                for request, answer in exchanges:
                    _read(near, len(b"".join(request)))
                    near.sendall(b"".join(answer))

        service = threading.Thread(target=serve)
        service.start()
        tap = HttpTap(f"127.0.0.1:{listener.getsockname()[1]}")
        host, _, port = tap.address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=60) as client:
            for request, answer in exchanges:
                client.sendall(b"".join(request))
                _read(client, len(b"".join(answer)))
        service.join()
        try:
            yield tap
        finally:
            tap.stop()


def _counted(exchanges: Sequence[tuple[Message, Message]], kinds: Sequence[str]) -> Tally:
    tally = Tally()
    for kind, (request, answer) in zip(kinds, exchanges, strict=True):
        tally.requests[kind] += 1
        for way, (head, body) in (("up", request), ("down", answer)):
            tally.size[kind, way, "head"] += len(head)
            tally.size[kind, way, "body"] += len(body)
    return tally


def test_heads_and_bodies_are_counted_by_what_a_call_is_for() -> None:
    kinds = ["node", "waiting", "model", "waiting", "run"]
    with _tapped(_EXCHANGES) as tap:
        tally = tap.tally()
        assert tally == _counted(_EXCHANGES, kinds)
        passed = sum(len(part) for exchange in _EXCHANGES for both in exchange for part in both)
        assert sum(tally.sum(kind, way) for kind in set(kinds) for way in ("up", "down")) == passed
        assert tally - _counted(_EXCHANGES[:2], kinds[:2]) == _counted(_EXCHANGES[2:], kinds[2:])


def test_what_has_not_passed_whole_is_not_counted_yet() -> None:
    head, body = _request("push-object", b"x" * 100)
    for request in ((head, body[:-1]), (head[:-1], b"")):
        with _tapped([*_EXCHANGES[:1], (request, (b"", b""))]) as tap:
            assert tap.tally() == _counted(_EXCHANGES[:1], ["node"])
    head, body = _CHUNKED
    for cut in (1, 3, 5, len(body) - 1):
        exchange = (_request("get-run"), (head, body[:-cut]))
        with _tapped([exchange]) as tap:
            tally = tap.tally()
            assert tally.requests == {"run": 1}
            assert tally.sum("run", "up") == len(exchange[0][0])
            assert tally.sum("run", "down") == 0
