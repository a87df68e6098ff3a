"""What passes between a device and a SuperLink, by Flower's own calls: heads and bodies of HTTP."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from dataclasses import dataclass, field

__all__ = ["CALLS", "HttpTap", "Tally"]

CALLS = {
    "pull-messages": "waiting",
    "send-node-heartbeat": "waiting",
    "get-run": "run",
    "get-fab": "run",
    "activate-node": "node",
    "register-node": "node",
}
"""The last part of a path -> what it is for; all others move a message's objects."""


@dataclass
class Tally:
    """Bytes by (kind of call, "up" or "down", "head" or "body"), and requests by kind of call."""

    size: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    requests: Counter[str] = field(default_factory=Counter)

    def __sub__(self, other: Tally) -> Tally:
        """Return what came after ``other``."""
        return Tally(self.size - other.size, self.requests - other.requests)

    def sum(self, kind: str, way: str) -> int:
        """Return heads and bodies."""
        return self.size[kind, way, "head"] + self.size[kind, way, "body"]


class HttpTap:
    """Relays connections to ``target`` and keeps what passes, to take it apart later."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = host, int(port)
        self._passed: list[tuple[bytearray, bytearray]] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def tally(self) -> Tally:
        """Take apart all that has passed until now."""
        tally = Tally()
        for up, down in self._passed:
            requests, answers = _parts(bytes(up)), _parts(bytes(down))
            for at, (head, body) in enumerate(requests):
                call = head.split(b" ", 2)[1].rpartition(b"/")[2].decode()
                kind = CALLS.get(call, "model")
                tally.requests[kind] += 1
                tally.size[kind, "up", "head"] += len(head)
                tally.size[kind, "up", "body"] += body
                if at < len(answers):
                    tally.size[kind, "down", "head"] += len(answers[at][0])
                    tally.size[kind, "down", "body"] += answers[at][1]
        return tally

    def stop(self) -> None:
        """Listen no more."""
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._target)
            except OSError:
                return
            kept = bytearray(), bytearray()
            self._passed.append(kept)
            for one, other, into in ((near, far, kept[0]), (far, near, kept[1])):
                threading.Thread(target=_pump, args=(one, other, into), daemon=True).start()


def _pump(one: socket.socket, other: socket.socket, into: bytearray) -> None:
    try:
        while data := one.recv(1 << 16):
            into += data
            other.sendall(data)
        other.shutdown(socket.SHUT_WR)
    except OSError:
        for end in (one, other):
            end.close()


def _parts(stream: bytes) -> list[tuple[bytes, int]]:
    """Return (head, bytes of the body with its framing) of each complete message of HTTP/1.1."""
    found: list[tuple[bytes, int]] = []
    at = 0
    while (end := stream.find(b"\r\n\r\n", at)) >= 0:
        head = stream[at : end + 4]
        fields = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(b":") for line in head.split(b"\r\n")[1:])
        }
        begin = at = end + 4
        if fields.get(b"transfer-encoding") == b"chunked":
            size = -1
            while size:
                line = stream.find(b"\r\n", at)
                if line < 0:
                    return found
                size = int(stream[at:line], 16)
                at = line + 2 + size + 2
        else:
            at += int(fields.get(b"content-length", b"0"))
        if at > len(stream):
            return found
        found.append((head, at - begin))
    return found
