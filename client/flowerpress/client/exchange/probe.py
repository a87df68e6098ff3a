"""How fast the link to an exchange service is, measured with up to a MiB in each direction."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from flowerpress.client.exchange.errors import ExchangeUnreachableError
from flowerpress.client.exchange.link import open_channel
from flowerpress.client.exchange.transfers import Talk
from flowerpress.client.stream import BrokenError, Stream
from flowerpress.compression import FormatError
from flowerpress.protos.exchange import LARGEST_PROBE, METHOD, ExchangeMessage, Kind
from flowerpress.protos.window import Window

__all__ = ["LinkRate", "measure_link"]

_SECONDS = 3.0
"""For so long bytes are sent; a thin link needs less than all of them."""

_Seen = list[tuple[float, int]]
"""Moments (seconds), and how many bytes had crossed by then."""


@dataclass(frozen=True)
class LinkRate:
    """Bits a second from the device to the service (``up``) and back (``down``)."""

    up: float
    down: float


def measure_link(
    address: str,
    *,
    tls: bool = False,
    root_certificates: bytes | None = None,
    patience: float = 20.0,
) -> LinkRate:
    """Measure what crosses in a few seconds, TLS and framing left out.

    The first half, in which a connection finds its pace, is not in the rates.

    Args:
        address, tls, root_certificates: as ``ExchangeLink`` takes them.
        patience: seconds without an answer after which it gives up.

    Raises:
        ExchangeError: nobody answers, or the service refuses; the message says why.
        WireError: what answers is no exchange service.
    """
    channel = open_channel(address, tls, root_certificates)
    stream = Stream(channel, METHOD)
    talk = Talk(stream, ExchangeMessage(Kind.PROBE), patience)
    try:
        up = _send(talk)
        return LinkRate(_rate(up), _rate(_receive(talk, up[-1][1])))
    except BrokenError as error:
        raise ExchangeUnreachableError(f"{address}: the probe broke off ({error})") from error
    finally:
        stream.end()
        channel.close()


def _send(talk: Talk) -> _Seen:
    noise = memoryview(os.urandom(LARGEST_PROBE))
    window = Window(LARGEST_PROBE, 0)
    began = now = time.monotonic()
    seen = [(began, 0)]
    while True:
        while now - began < _SECONDS and (size := window.chunk):
            piece = bytes(noise[window.sent : window.sent + size])
            talk.send(ExchangeMessage(Kind.PROBE, data=piece))
            window.send(size, time.monotonic())
        if window.acknowledged == window.sent:
            return seen
        offset = talk.receive(Kind.ACK).offset
        now = time.monotonic()
        window.acknowledge(offset, now)
        seen.append((now, offset))


def _receive(talk: Talk, due: int) -> _Seen:
    seen = [(time.monotonic(), 0)]
    talk.send(ExchangeMessage(Kind.DONE))
    while (there := seen[-1][1]) < due:
        chunk = talk.receive(Kind.CHUNK)
        if chunk.offset != there or there + len(chunk.data) > due:
            raise FormatError("answer.offset", f"is {chunk.offset}, not {there}")
        seen.append((time.monotonic(), there + len(chunk.data)))
    return seen


def _rate(seen: _Seen) -> float:
    """Return the bits a second of the second half."""
    end, whole = seen[-1]
    half = next((time, there) for time, there in seen if 2 * there >= whole)
    start, before = half if half[1] < whole else seen[0]
    return 8 * (whole - before) / max(end - start, 1e-6)
