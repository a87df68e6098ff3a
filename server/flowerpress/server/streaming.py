"""A grid whose replies arrive one at a time, in the order in which they were asked for."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from flwr.app import Message, MessageType
from flwr.app.message.message import make_message
from flwr.serverapp import Grid

from flowerpress.protos import restamped
from flowerpress.server.passing import PassingGrid

__all__ = ["StreamingGrid"]

FIRST_PAUSE = 0.01
LONGEST_PAUSE = 1.0


class StreamingGrid(PassingGrid):
    """Wraps a grid: ``send_and_receive`` returns an iterator that pulls a reply when asked.

    Flower's own grids gather every reply in a list first. Pulling one after the other keeps one
    in memory, and the order of sending makes sums of floats independent of who was faster.

    Args:
        grid: the one inside.
        deadline: seconds for which replies to messages of training are waited for; None: no limit
            but the caller's.
    """

    def __init__(self, grid: Grid, deadline: float | None = None) -> None:
        super().__init__(grid)
        self._deadline = deadline

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Send now; return an iterator over the replies in the order of ``messages``.

        After ``timeout`` seconds, each message not yet answered is asked for once more and then
        left out.
        """
        messages = list(messages)
        if self._deadline is not None and any(map(_trains, messages)):
            timeout = self._deadline if timeout is None else min(timeout, self._deadline)
        nodes = [message.metadata.dst_node_id for message in messages]
        # Where a message could not be sent its id is None; where none could, there are no ids.
        ids = self._grid.push_messages(messages)
        sent = [(i, node) for i, node in zip(ids, nodes, strict=False) if i]
        return self._replies(sent, None if timeout is None else time.monotonic() + timeout)

    def _replies(self, sent: list[tuple[str, int]], deadline: float | None) -> Iterator[Message]:
        for message_id, node in sent:
            pause = FIRST_PAUSE
            while not (pulled := list(self._grid.pull_messages([message_id]))):
                if deadline is not None and time.monotonic() >= deadline:
                    break
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            yield from [_from_node(reply, node) for reply in pulled]


def _trains(message: Message) -> bool:
    return message.metadata.message_type.split(".")[0] == MessageType.TRAIN


def _from_node(reply: Message, node: int) -> Message:
    """Return the reply as one of ``node``, which was asked.

    The SuperLink answers in its own name for a node that is gone or a reply that was lost.
    """
    if not reply.has_error() or reply.metadata.src_node_id == node:
        return reply
    return make_message(restamped(reply.metadata, src_node_id=node), error=reply.error)
