"""Measuring a link: what a device sends is counted and dropped, and as much goes back."""

from __future__ import annotations

import asyncio
import os
from typing import Protocol

from flowerpress.protos.exchange import LARGEST_PROBE, Code, ExchangeMessage, Kind
from flowerpress.server.exchange.refusals import Refusal

__all__ = ["Probing"]

_PIECE = 8 << 10
_LONGEST = 30.0  # seconds


class _Stream(Protocol):
    async def read(self) -> ExchangeMessage | None: ...

    async def write(self, message: ExchangeMessage) -> None: ...

    def moved(self) -> None: ...


class Probing:
    """Answers probes, one at a time.

    A probe needs no token, since a device measures its link before there is a round. So it costs
    little: a MiB in each direction at most, never more back than came, and half a minute.
    """

    def __init__(self) -> None:
        self._busy = False

    async def answer(self, stream: _Stream, opened: ExchangeMessage) -> None:
        """Answer the stream that ``opened``, a PROBE, has begun.

        Raises:
            Refusal: another device is measuring, or this one sends or takes too much.
            WireError: as ``stream.read``.
        """
        if self._busy:
            raise Refusal(Code.BUSY, "another device measures its link; try again in a minute")
        self._busy = True
        try:
            async with asyncio.timeout(_LONGEST) as clock:
                await _answer(stream, opened)
        except TimeoutError:
            if not clock.expired():
                raise
            raise Refusal(Code.DEADLINE, f"a probe may take {_LONGEST:g} s") from None
        finally:
            self._busy = False


async def _answer(stream: _Stream, opened: ExchangeMessage) -> None:
    came, message = 0, opened
    while message.kind is Kind.PROBE:
        came += len(message.data)
        if came > LARGEST_PROBE:
            raise Refusal(Code.LIMIT, f"a probe has at most {LARGEST_PROBE} bytes")
        await stream.write(ExchangeMessage(Kind.ACK, came))
        answer = await stream.read()
        if answer is None:
            return
        message = answer
    if message.kind is not Kind.DONE:
        raise Refusal(Code.MALFORMED, f"{message.kind.name} in a probe")
    for start in range(0, came, _PIECE):
        # Not zeros: something on the way may compress.
        piece = os.urandom(min(_PIECE, came - start))
        await stream.write(ExchangeMessage(Kind.CHUNK, start, piece))
        stream.moved()
