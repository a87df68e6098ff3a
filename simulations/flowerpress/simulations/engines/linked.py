"""A grid on which messages take time: simulated links, a virtual clock, and a deadline.

Nothing waits. A reply's arrival is worked out from the bytes of both messages and the client's
link; one that would arrive after the round's deadline becomes an error reply, as if the server had
given up on that client. The clock does not depend on how fast this machine is, nor on the engine.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from flwr.app import Error, Message, MessageType, RecordDict
from flwr.app.message.message import make_message
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from flowerpress.compression import WireError
from flowerpress.protos import Instruction, Receipt
from flowerpress.protos.store import Snapshot
from flowerpress.server import PassingGrid
from flowerpress.simulations.links import Links

__all__ = ["LinkedGrid", "RoundTimes"]


@dataclass
class RoundTimes:
    """Simulated times of one round, in seconds from its begin, by partition.

    ``arrivals`` are those of replies that came in time, ``missed`` those of the others.
    """

    deadline: float | None = None
    arrivals: dict[int, float] = field(default_factory=dict)
    missed: dict[int, float] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """How long the server waited: up to the deadline if a reply was missed, else the last."""
        if self.missed and self.deadline is not None:
            return self.deadline
        return max(self.arrivals.values(), default=0.0)


@dataclass(frozen=True)
class _Sent:
    """An instruction under way: its round, its client's partition, and its bytes (blob, plan)."""

    round: int
    partition: int
    size: int


class LinkedGrid(PassingGrid):
    """Wraps a grid: replies to training take as long as ``links`` says.

    Everything else (questions, evaluation) passes as if it took no time.

    Args:
        grid: the one inside.
        links: of all clients.
        partitions: node id -> partition.
        deadline: seconds from a round's begin after which a reply is not waited for any more;
            None: the server waits for the slowest.
    """

    def __init__(
        self, grid: Grid, links: Links, partitions: Mapping[int, int], deadline: float | None = None
    ) -> None:
        super().__init__(grid)
        self._links = links
        self._partitions = partitions
        self._deadline = deadline
        self._under_way: dict[str, _Sent] = {}
        self._rounds: dict[int, RoundTimes] = defaultdict(lambda: RoundTimes(deadline))

    def of(self, server_round: int) -> RoundTimes:
        """Return the times of one round; all empty if nothing was sent in it."""
        return self._rounds[server_round]

    @property
    def seconds(self) -> float:
        """How long all rounds so far took."""
        return math.fsum(times.seconds for times in self._rounds.values())

    def state(self) -> Snapshot:
        """Return the times of all rounds; nothing is under way between rounds."""
        rounds = self._rounds.items()
        facts = [[n, list(t.arrivals.items()), list(t.missed.items())] for n, t in rounds]
        return Snapshot({"rounds": facts})

    def restore(self, snapshot: Snapshot) -> None:
        """Go on from what ``state()`` returned."""
        for number, arrivals, missed in snapshot.facts["rounds"]:
            self._rounds[number] = RoundTimes(self._deadline, dict(arrivals), dict(missed))

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Pass on, and note what was sent to whom."""
        messages = list(messages)
        sent = [self._sent(message) for message in messages]
        ids = list(self._grid.push_messages(messages))
        # Where nothing could be sent there are no ids.
        for message_id, one in zip(ids, sent, strict=False):
            if one is not None and message_id:
                self._under_way[message_id] = one
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies that are there, those that came too late as error replies."""
        for message_id in message_ids:
            for reply in self._grid.pull_messages([message_id]):
                yield self._timed(reply, self._under_way.pop(message_id, None))

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Send and wait; ``timeout`` is in real seconds."""
        messages = list(messages)
        sent = {message.metadata.dst_node_id: self._sent(message) for message in messages}
        return [
            self._timed(reply, sent.get(reply.metadata.src_node_id))
            for reply in self._grid.send_and_receive(messages, timeout=timeout)
        ]

    def _sent(self, message: Message) -> _Sent | None:
        if message.metadata.message_type.split(".")[0] != MessageType.TRAIN:
            return None
        instruction = Instruction.read(message.content)
        partition = self._partitions.get(message.metadata.dst_node_id)
        if instruction is None or partition is None:
            return None
        return _Sent(
            instruction.round, partition, _payload(message.content) + len(instruction.plan)
        )

    def _timed(self, reply: Message, sent: _Sent | None) -> Message:
        if sent is None:
            return reply
        times = self._rounds[sent.round]
        update = _payload(reply.content) if reply.has_content() else 0
        up = update + (_measured(reply.content) if update else 0)
        took = self._links[sent.partition].seconds(sent.size, up, trained=update > 0)
        # A client that was sent a whole model after all is on its second trip of the round.
        arrival = times.arrivals.pop(sent.partition, 0.0) + took
        if self._deadline is None or arrival <= self._deadline:
            times.arrivals[sent.partition] = arrival
            return reply
        times.missed[sent.partition] = arrival
        reason = (
            f"missed the deadline of {self._deadline:g} s: "
            f"its update would have arrived after {arrival:.4g} s"
        )
        return make_message(
            reply.metadata, error=Error(ErrorCode.REPLY_MESSAGE_UNAVAILABLE, reason)
        )


def _measured(content: RecordDict) -> int:
    """Return the bytes of what a client measured for the next plan and sent with its update."""
    try:
        return len(Receipt.read(content).points)
    except WireError:  # whoever reads the reply will say so
        return 0


def _payload(content: RecordDict) -> int:
    """Return the bytes of all arrays in a message: with press(), those of its one blob."""
    return sum(
        len(array.data) for record in content.array_records.values() for array in record.values()
    )
