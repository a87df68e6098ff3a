"""The downlink blob: the updates that lead a client from what it holds to the newest version."""

from __future__ import annotations

from collections.abc import Sequence

from flowerpress.compression import LimitError, Reader, Writer

__all__ = ["MAX_UPDATES", "join_updates", "split_updates"]

# How many changes a client may be behind before it is sent a whole model instead.
MAX_UPDATES = 4096


def join_updates(updates: Sequence[bytes]) -> bytes:
    """Return the envelopes of ``updates`` as one blob, each behind its length."""
    out = Writer()
    out.varint(len(updates))
    for update in updates:
        out.blob(update)
    return out.getvalue()


def split_updates(blob: bytes | memoryview) -> list[memoryview]:
    """Return views of the envelopes in ``blob``; none is checked yet.

    Raises:
        WireError: lengths that do not add up, or too many updates.
    """
    reader = Reader(memoryview(blob), "delivery")
    n = reader.varint()
    if n > MAX_UPDATES:
        raise LimitError("delivery", f"{n} updates, at most {MAX_UPDATES} are accepted")
    parts = [reader.blob() for _ in range(n)]
    reader.finish()
    return parts
