"""A thin, slow, unreliable link in front of a TCP service, without root: for tests and demos.

    with LinkProxy("127.0.0.1:8000", up=64_000, latency=0.2, cuts=[Cut(up=100_000)]) as proxy:
        ...  # whoever connects to proxy.address reaches port 8000 over that link
        proxy.total

What passes is real TCP through real sockets; only the time it takes is made here.
``simulations.links`` is the other kind of link: there nothing passes and nothing waits.
"""

from __future__ import annotations

from flowerpress.simulations.linkproxy.cuts import Cut, random_cuts
from flowerpress.simulations.linkproxy.proxy import Carried, LinkProxy

__all__ = ["Carried", "Cut", "LinkProxy", "random_cuts"]
