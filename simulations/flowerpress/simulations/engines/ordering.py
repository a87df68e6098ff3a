"""The same nodes in the same order, and by the same ids, under every engine and in every process.

Flower's own engine gives nodes random ids, in no particular order. Strategies sample from the
list of ids, so the order decides who takes part; updates and what is kept of a run name clients by
their ids. ``ordered`` asks every node once which partition it has and returns a grid on which the
node's id follows from that.

Strategies sample with Python's global generator, right after they asked for the list. Threads of
Flower's draw from that generator, too (the pauses between heartbeats), now and then and at no
fixed time. So the grid seeds it anew whenever it is asked.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Mapping

from flwr.app import Message, RecordDict
from flwr.app.message.message import make_message
from flwr.serverapp import Grid

from flowerpress.protos import restamped
from flowerpress.protos.store import Snapshot
from flowerpress.server import PassingGrid
from flowerpress.simulations.engines.errors import EngineError
from flowerpress.simulations.engines.grid import FIRST_NODE

__all__ = ["OrderedGrid", "ordered"]

_PATIENCE = 300.0  # seconds; every node loads torch before it answers, on one machine all at once


class OrderedGrid(PassingGrid):
    """Another grid, whose nodes are listed in order of their partitions, and named by them.

    ``nodes`` maps the other grid's ids to partitions; ``seed`` is for what is drawn from the list.
    ``partitions`` maps the ids of this grid, ``FIRST_NODE`` and on, to partitions.
    """

    def __init__(self, grid: Grid, nodes: Mapping[int, int], seed: int) -> None:
        super().__init__(grid)
        self.partitions = {
            FIRST_NODE + partition: partition for partition in sorted(nodes.values())
        }
        self._own = {node: FIRST_NODE + partition for node, partition in nodes.items()}
        self._theirs = {own: node for node, own in self._own.items()}
        self._seed = seed
        self._asked = 0

    def state(self) -> Snapshot:
        """Return how often the nodes were asked for."""
        return Snapshot({"asked": self._asked})

    def restore(self, snapshot: Snapshot) -> None:
        """Go on from what ``state()`` returned."""
        self._asked = snapshot.facts["asked"]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Pass on, to the nodes that are meant."""
        return self._grid.push_messages([self._addressed(message) for message in messages])

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Pass on, as from the nodes that are known here."""
        for reply in self._grid.pull_messages(message_ids):
            yield self._returned(reply)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Pass on, to the nodes that are meant, as from those that are known here."""
        sent = [self._addressed(message) for message in messages]
        return [
            self._returned(reply) for reply in self._grid.send_and_receive(sent, timeout=timeout)
        ]

    def _addressed(self, message: Message) -> Message:
        node = message.metadata.dst_node_id
        return _restamped(message, dst_node_id=self._theirs.get(node, node))

    def _returned(self, reply: Message) -> Message:
        # What the SuperLink answers in place of a node comes from the SuperLink.
        node = reply.metadata.src_node_id
        return _restamped(reply, src_node_id=self._own.get(node, node))

    def get_node_ids(self) -> Iterable[int]:
        """Return the node ids in order of their partitions, and seed the global generator."""
        self._asked += 1
        nodes = list(self.partitions)
        random.seed(f"{self._seed}/{self._asked}")
        return nodes


def ordered(grid: Grid, clients: int, seed: int = 0) -> OrderedGrid:
    """Ask every node for its partition (a ``query`` message) and list them by it.

    Raises:
        EngineError: there are not ``clients`` nodes, one does not answer or answers something
            else, or two have the same partition.
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
        node = reply.metadata.src_node_id
        try:
            partition = reply.content.metric_records["partition"]["partition-id"]
            partitions[node] = int(str(partition))
        except (KeyError, ValueError) as error:
            raise EngineError(f"client {node} does not say which partition it has") from error
    if sorted(partitions.values()) != list(range(clients)):
        raise EngineError(
            f"{clients} clients should have partitions 0 to {clients - 1}, but they answered "
            f"{sorted(partitions.values())}"
        )
    return OrderedGrid(grid, partitions, seed)


def _restamped(message: Message, **changes: int) -> Message:
    """Return the message with other ids; its content is not copied."""
    metadata = restamped(message.metadata, **changes)
    if message.has_error():
        return make_message(metadata, error=message.error)
    return make_message(metadata, content=message.content)
