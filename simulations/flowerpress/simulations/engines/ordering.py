"""The same nodes in the same order under every engine.

Flower's own engine gives nodes random ids, in no particular order. Strategies sample from the
list of ids, so the order decides who takes part. ``ordered`` asks every node once which
partition it has and returns a grid that lists the nodes by it.

Strategies sample with Python's global generator, right after they asked for the list. Threads of
Flower's draw from that generator, too (the pauses between heartbeats), now and then and at no
fixed time. So the grid seeds it anew whenever it is asked.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from flowerpress.server import PassingGrid
from flowerpress.simulations.engines.errors import EngineError

__all__ = ["OrderedGrid", "ordered"]

_PATIENCE = 300.0  # seconds; every node loads torch before it answers, on one machine all at once


class OrderedGrid(PassingGrid):
    """Another grid, whose nodes are listed in order of their partitions.

    ``partitions`` maps a node's id to its partition; ``seed`` is for what is drawn from the list.
    """

    def __init__(self, grid: Grid, partitions: dict[int, int], seed: int) -> None:
        super().__init__(grid)
        self.partitions = dict(sorted(partitions.items(), key=lambda item: item[1]))
        self._seed = seed
        self._asked = 0

    def get_node_ids(self) -> Iterable[int]:
        """Return the node ids in order of their partitions, and seed the global generator."""
        self._asked += 1
        nodes = list(self.partitions)
        random.seed(f"{self._seed}/{self._asked}")
        return nodes


def ordered(grid: Grid, clients: int, seed: int = 0) -> OrderedGrid:
    """Ask every node for its partition (a ``query`` message) and list them by it.

    Raises:
        EngineError: there are not ``clients`` nodes, one does not answer, or two have the same
            partition.
    """
    deadline = time.monotonic() + _PATIENCE
    while len(nodes := list(grid.get_node_ids())) < clients:
        if time.monotonic() > deadline:
            raise EngineError(f"only {len(nodes)} of {clients} clients have come up")
        time.sleep(0.1)
    questions = [Message(RecordDict(), node, "query") for node in nodes]
    partitions: dict[int, int] = {}
    for reply in grid.send_and_receive(questions, timeout=_PATIENCE):
        if reply.has_error():
            raise EngineError(f"a client cannot start: {reply.error.reason}")
        partition = reply.content.metric_records["partition"]["partition-id"]
        partitions[reply.metadata.src_node_id] = int(str(partition))
    if sorted(partitions.values()) != list(range(clients)):
        raise EngineError(
            f"{clients} clients should have partitions 0 to {clients - 1}, but they answered "
            f"{sorted(partitions.values())}"
        )
    return OrderedGrid(grid, partitions, seed)
