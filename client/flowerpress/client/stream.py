"""One gRPC stream as a device uses it: messages out, messages in before a deadline."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator

import grpc

__all__ = ["SILENCE", "BrokenError", "Stream"]

SILENCE = "it does not answer"


class BrokenError(Exception):
    """The stream ended, or had no answer before the deadline."""


class Stream:
    """A bidirectional stream of bytes to ``method`` of a service.

    What is sent waits in memory until gRPC takes it: whoever sends bounds what is under way.
    """

    def __init__(self, channel: grpc.Channel, method: str) -> None:
        self._out: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._in: queue.SimpleQueue[bytes | Exception] = queue.SimpleQueue()
        self._call = channel.stream_stream(method)(iter(self._out.get, None))
        threading.Thread(target=self._read, args=(self._call,), daemon=True).start()

    def send(self, data: bytes) -> None:
        """Send ``data``; do not wait until it has left."""
        self._out.put(data)

    def receive(self, deadline: float) -> bytes:
        """Return the next message that comes in before ``deadline`` (``time.monotonic``).

        Raises:
            BrokenError: none did, or the stream ended.
        """
        try:
            answer = self._in.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            raise BrokenError(SILENCE) from None
        if isinstance(answer, Exception):
            raise BrokenError(_reason(answer)) from answer
        return answer

    def ask(self, data: bytes, deadline: float) -> bytes:
        """Send ``data`` and return what comes back.

        Raises:
            BrokenError: as ``receive``.
        """
        self.send(data)
        return self.receive(deadline)

    def finish(self, deadline: float) -> None:
        """Let what was sent arrive and the other end finish, if both do before ``deadline``."""
        self._out.put(None)
        try:
            while True:
                self.receive(deadline)
        except BrokenError:
            return

    def end(self) -> None:
        """End the stream; nothing more is read."""
        self._out.put(None)
        self._call.cancel()

    def _read(self, answers: Iterator[bytes]) -> None:
        try:
            for answer in answers:
                self._in.put(answer)
            self._in.put(EOFError("the service ended the stream"))
        except Exception as error:  # noqa: BLE001 - it is raised where the answer is awaited
            self._in.put(error)


def _reason(error: Exception) -> str:
    details = getattr(error, "details", None)
    return str(details() if callable(details) else error)
