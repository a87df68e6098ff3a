"""A service that is killed and replaced in the middle of a round, and a device that trains on."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from flowerpress.client.split import SplitLink, train_split
from flowerpress.compression.bottleneck import Cut, bottleneck
from tests.wire.splitting import (
    Batch,
    assert_same,
    batches,
    copies_of,
    elsewhere,
    linked,
    momentum,
    network,
    port_of,
    train_whole,
)

DATA = batches(3)


def test_a_round_that_a_service_lost_is_begun_anew_and_ends(tmp_path: Path) -> None:
    head, tail, last = network()
    served = nn.Sequential(tail, last)
    twins = copies_of([head, served])
    train_whole(twins, DATA, momentum)
    cut = Cut(head, bottleneck("none", (4, 3, 3), (4, 3, 3)), served)
    path = tmp_path / "tail.pt"
    restarts: list[bool] = []
    with contextlib.ExitStack() as processes:

        def serve(port: int) -> tuple[subprocess.Popen[str], int]:
            process = processes.enter_context(elsewhere(str(port), "vanilla", str(path)))
            return process, port_of(process)

        running, port = serve(0)

        def replaced() -> Iterator[Batch]:
            nonlocal running
            yield from DATA[:2]
            if len(restarts) == 1:
                running.kill()
                running.wait()
                running, again = serve(port)
                assert again == port
            yield from DATA[2:]

        def connect(restart: bool) -> SplitLink:
            restarts.append(restart)
            return linked(port, restart=restart, deadline=60.0)

        result = train_split(
            connect, cut, replaced, lambda own: [momentum(own.device.parameters())]
        )
        steps, _ = running.communicate("end\n", timeout=60)
    assert restarts == [False, True]
    # Had a step been taken twice, on either side, the two would not be those of the whole network.
    assert int(steps) == len(DATA)
    assert result.examples == sum(len(labels) for _, labels in DATA)
    assert_same(head, twins[0])
    served.load_state_dict(torch.load(path, weights_only=True))
    assert_same(served, twins[1])
