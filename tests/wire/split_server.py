"""The tail of ``splitting.network`` in a process of its own.

    python -m tests.wire.split_server PORT MODE FILE

Prints its port. A line on its standard input ends the round: the tail goes to FILE.
"""

from __future__ import annotations

import sys

import torch
from torch import nn

from flowerpress.server.split import Copies, SplitService
from tests.wire.splitting import RUN, SECRET, momentum, network


def main(port: str, mode: str, path: str) -> None:
    torch.set_num_threads(1)
    _, tail, last = network()
    module = tail if mode == "u" else nn.Sequential(tail, last)
    tails = Copies(module, momentum)
    service = SplitService(tails, run=RUN, features="none", gradients="none", mode=mode)
    print(service.serve(f"127.0.0.1:{port}"), flush=True)
    service.begin_round(1, [1, 2], SECRET)
    sys.stdin.readline()
    report = service.end_round()
    service.stop(0.0)
    torch.save(tails.state_dict(), path)
    print(report.clients[1].steps, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
