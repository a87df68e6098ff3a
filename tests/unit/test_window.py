"""How much may be under way: a link's second, however it behaves."""

from __future__ import annotations

import heapq

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowerpress.compression import FormatError
from flowerpress.protos.window import LARGEST_CHUNK, SMALLEST_WINDOW, Window


def over_a_link(window: Window, length: int, rate: float, latency: float) -> tuple[float, float]:
    """Send ``length`` bytes at ``rate`` bytes a second; return the seconds and the last size.

    A chunk waits for those before it, crosses, and its acknowledgement is back a latency later.
    """
    now = free = 0.0
    acks: list[tuple[float, int]] = []
    while window.acknowledged < length:
        while size := window.chunk:
            free = max(free, now) + size / rate
            window.send(size, now)
            heapq.heappush(acks, (free + 2 * latency, window.sent))
        now, offset = heapq.heappop(acks)
        window.acknowledge(offset, now)
    return now, window.size


@given(
    length=st.integers(1, 3_000_000),
    start=st.integers(0, 100),
    rate=st.floats(500, 1e8),
    latency=st.floats(0, 3),
)
@settings(max_examples=60, deadline=None)
def test_all_is_sent_once_and_never_more_than_the_window(
    length: int, start: int, rate: float, latency: float
) -> None:
    start = min(start, length)
    window = Window(length, start)
    sent = start
    now = free = 0.0
    acks: list[tuple[float, int]] = []
    while window.acknowledged < length:
        while size := window.chunk:
            assert 0 < size <= LARGEST_CHUNK
            sent += size
            free = max(free, now) + size / rate
            window.send(size, now)
            assert window.sent == sent
            assert window.sent - window.acknowledged <= max(window.size, SMALLEST_WINDOW)
            heapq.heappush(acks, (free + 2 * latency, sent))
        now, offset = heapq.heappop(acks)  # something is under way: it never gets stuck
        window.acknowledge(offset, now)
    assert sent == length
    assert not window.chunk


@pytest.mark.parametrize("latency", [0.0, 0.05, 0.3, 1.0])
@pytest.mark.parametrize("rate", [8_000, 125_000, 2_000_000])
def test_a_link_is_used_and_not_stuffed(rate: int, latency: float) -> None:
    length = 60 * rate
    seconds, size = over_a_link(Window(length, 0), length, rate, latency)
    # At most a second of the link is under way, or two round trips of a chunk.
    trip = SMALLEST_WINDOW / 2 / rate + 2 * latency
    assert size <= 1.1 * max(SMALLEST_WINDOW, rate * max(1.0, 2 * trip))
    assert seconds < 1.25 * length / rate + 20 * latency


def test_a_window_goes_down_when_the_link_gets_thin() -> None:
    window = Window(1 << 30, 0)
    _, wide = over_a_link(window, 20_000_000, 2_000_000, 0.01)
    assert wide > 1_000_000
    now = 100.0
    while window.sent < 25_000_000:
        size = window.chunk
        window.send(size, now)
        now += size / 8_000
        window.acknowledge(window.sent, now)
    assert window.size <= 2 * SMALLEST_WINDOW


def test_acknowledgements_that_nobody_sends() -> None:
    window = Window(100_000, 10)
    window.send(window.chunk, 0.0)
    for offset in (0, 10, 8203, 100_000):
        with pytest.raises(FormatError, match="acknowledges"):
            window.acknowledge(offset, 1.0)
    window.acknowledge(8202, 1.0)
    assert window.acknowledged == 8202
