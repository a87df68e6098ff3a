"""A thin link that breaks three times: an update arrives once, and little crosses twice.

The sentence that this shows is about 4 MB over 64 kbit/s, which takes nine minutes; the default
suite moves less over a faster link, in as many pieces of a second.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from flowerpress.simulations.linkproxy import Cut, LinkProxy
from tests.wire.exchanging import exchanging, noise


@pytest.mark.parametrize(
    ("size", "rate"),
    [
        (2_000_000, 1_000_000),
        pytest.param(4 << 20, 64_000, marks=pytest.mark.slow),
    ],
)
def test_three_disconnects_cost_less_than_three_percent(size: int, rate: int) -> None:
    blob = noise(size)

    def moved(way: str) -> float:
        """Return all bytes that the link carried, over those of the blob."""
        with exchanging() as served:
            served.open(largest=size)
            cuts = [Cut(**{way: size // 4}) for _ in range(3)]
            with LinkProxy(served.service.address, up=rate, down=rate, cuts=cuts) as proxy:
                with served.link(address=proxy.address, patience=60.0) as link:
                    if way == "up":
                        assert served.take(link.upload(blob, 1)) == blob
                        assert served.service.traffic(1)[1].up.payload == size
                    else:
                        assert link.download(served.offer(blob)) == blob
                assert proxy.cuts == 3
                assert [carried.cut for carried in proxy.counts] == [True] * 3 + [False]
                return (proxy.total.up + proxy.total.down) / size

    with ThreadPoolExecutor(2) as both:
        overheads = list(both.map(moved, ("up", "down")))
    assert all(1.0 < overhead < 1.03 for overhead in overheads), overheads
