"""How much of a blob may be under way, so that a link that breaks costs about a second of it.

Both ends of an exchange send by it. The rate is what was acknowledged while a piece was under way,
over the time that it took, as in BBR (Cardwell et al., ACM Queue 14(5), 2016); the window is what
the link moves in a second, or in twice its shortest round trip where that is longer.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from flowerpress.compression import FormatError
from flowerpress.protos.exchange import LARGEST_MESSAGE

__all__ = ["LARGEST_CHUNK", "SMALLEST_WINDOW", "Window"]

SMALLEST_WINDOW = 16 << 10
_LARGEST_WINDOW = 8 << 20
_SMALLEST_CHUNK = SMALLEST_WINDOW // 2
# In a window. What of a chunk has crossed when the link breaks has to cross again.
_CHUNKS = 16
LARGEST_CHUNK = LARGEST_MESSAGE // 2


@dataclass(frozen=True)
class _Piece:
    """A chunk under way: where it ends, when it was sent, what was acknowledged then."""

    end: int
    sent: float
    acknowledged: int


class Window:
    """The sending end's account of one blob.

    Args:
        length: bytes of the blob.
        offset: bytes that the other end has.
        size: bytes that may be under way at first, such as those of the connection before.

    Attributes:
        sent: where the next chunk begins.
        acknowledged: bytes that have arrived.
        size: bytes that may be under way.
    """

    def __init__(self, length: int, offset: int, size: float = SMALLEST_WINDOW) -> None:
        self.sent = self.acknowledged = offset
        self._length = length
        self.size = size
        self._shortest = float("inf")
        self._under_way: deque[_Piece] = deque()

    @property
    def chunk(self) -> int:
        """Bytes of the next chunk; 0: nothing may be sent before something is acknowledged."""
        size = min(max(int(self.size) // _CHUNKS, _SMALLEST_CHUNK), LARGEST_CHUNK)
        size = min(size, self._length - self.sent)
        return size if self.sent + size - self.acknowledged <= self.size else 0

    def send(self, size: int, now: float) -> None:
        """Note that the next ``size`` bytes were sent at ``now`` (seconds of any clock)."""
        self.sent += size
        self._under_way.append(_Piece(self.sent, now, self.acknowledged))

    def acknowledge(self, offset: int, now: float) -> None:
        """Note that all bytes before ``offset`` have arrived.

        Raises:
            FormatError: bytes that were not sent, or nothing new.
        """
        if not self.acknowledged < offset <= self.sent:
            raise FormatError(
                "message.offset",
                f"acknowledges {offset} bytes, where {self.acknowledged} to {self.sent} are due",
            )
        self.acknowledged = offset
        piece = None
        while self._under_way and self._under_way[0].end <= offset:
            piece = self._under_way.popleft()
        if piece is not None:
            self._adapt((offset - piece.acknowledged), max(now - piece.sent, 1e-6))

    def _adapt(self, delivered: int, seconds: float) -> None:
        self._shortest = min(self._shortest, seconds)
        target = delivered / seconds * max(1.0, 2 * self._shortest)
        # Up as fast as the link shows that it can, down slowly: one late answer says little.
        size = min(target, 2 * self.size) if target > self.size else (3 * self.size + target) / 4
        self.size = min(max(size, SMALLEST_WINDOW), _LARGEST_WINDOW)
