"""A client that sends without reading what comes back is held back, and holds back nobody else."""

from __future__ import annotations

import gc
import resource
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
from torch import nn

from flowerpress.compression.features import feature_codec
from flowerpress.protos.split import (
    HELLO,
    METHOD,
    Kind,
    SplitLimits,
    SplitMessage,
    channel_options,
    pack_split,
    unpack_split,
)
from flowerpress.server.split import Copies
from tests.wire.splitting import RUN, linked, plain, serving

MESSAGES = 600
LATENT = np.random.default_rng(0).normal(size=(64, 8, 32)).astype(np.float32)


def memory() -> int:
    """Return this process's resident bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def test_a_client_that_does_not_read_is_held_back() -> None:
    limits = SplitLimits()
    taken = 0
    keyed = threading.Event()
    key = HELLO

    def messages() -> Iterator[bytes]:
        nonlocal taken
        yield pack_split(SplitMessage(Kind.OPEN, run=RUN, client=1), HELLO)
        keyed.wait(20)
        payload = feature_codec("none").encode(LATENT)
        ask = SplitMessage(Kind.INFER, shape=LATENT.shape, payload=payload)
        data = pack_split(ask, key)
        for _ in range(MESSAGES):
            taken += 1
            yield data

    with serving(Copies(nn.Identity(), plain), ()) as service:
        address = f"127.0.0.1:{service.port}"  # type: ignore[attr-defined]
        with grpc.insecure_channel(address, channel_options(limits)) as channel:
            answers = channel.stream_stream(METHOD)(messages(), timeout=120)
            key = unpack_split(next(answers), HELLO, limits).session
            gc.collect()
            before = memory()
            keyed.set()
            last, since, until = 0, time.monotonic(), time.monotonic() + 30
            while time.monotonic() < min(since + 1.0, until):
                if taken != last or not taken:
                    last, since = taken, time.monotonic()
                time.sleep(0.02)
            # 39 MB are ready to be sent; the windows of a connection are full after some of them.
            assert 0 < taken < MESSAGES // 3
            assert memory() - before < 16 << 20
            with linked(service, 2, round=0, token=b"") as other:
                np.testing.assert_array_equal(other.infer(LATENT), LATENT)
            for _ in range(MESSAGES):
                answer = unpack_split(next(answers), key, limits)
                assert answer.kind is Kind.PREDICTION
            assert taken == MESSAGES
            assert memory() - before < 24 << 20
