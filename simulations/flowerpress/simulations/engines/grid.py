"""What the in-process and the worker engine share: a grid of numbered nodes, without a network.

A node's id is its partition number plus ``FIRST_NODE``, so it is the same in every run. Messages
are stamped as Flower's SuperLink would stamp them. No record is shared between sender and
receiver: what one side puts into a message or takes out of it, the other side never sees. Only
the arrays' bytes, which cannot change, are passed on without a copy.
"""

from __future__ import annotations

import copy
import random
import sys
import time
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.app.message.message import make_message
from flwr.app.user_config import UserConfig
from flwr.clientapp import ClientApp
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from flowerpress.protos import restamped

__all__ = [
    "FIRST_NODE",
    "LocalGrid",
    "answer",
    "generators_kept",
    "node_context",
    "server_identity",
]

# Flower keeps 0 and 1 for itself: 1 is the SuperLink.
FIRST_NODE = 2

_PATIENCE = 10.0  # seconds that one pull waits for a reply before the caller is to ask again


class LocalGrid(Grid):
    """A grid of ``clients`` nodes on this machine; subclasses say how a message is answered."""

    def __init__(self, clients: int, run_id: int) -> None:
        self._node_ids = tuple(range(FIRST_NODE, FIRST_NODE + clients))
        self._run = Run.create_empty(run_id)
        self._sent = 0

    @abstractmethod
    def _accept(self, message: Message) -> None:
        """Take a stamped instruction; work on it may start now or when its reply is asked for."""

    @abstractmethod
    def _reply(self, message_id: str, patience: float | None) -> Message | None:
        """Return the reply to an instruction, or ``None`` if it takes more than ``patience`` s.

        Raises:
            KeyError: no such instruction, or its reply was taken already.
        """

    def set_run(self, run: Run) -> None:
        """Take over the run's information."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run's information."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Create an instruction for one node."""
        with server_identity(self._run.run_id):
            return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Return all node ids, in order of their partitions."""
        return list(self._node_ids)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Take instructions; return one id each, with which its reply can be pulled.

        Raises:
            ValueError: a message for a node that does not exist.
        """
        message_ids = []
        for message in messages:
            if message.metadata.dst_node_id not in range(
                FIRST_NODE, FIRST_NODE + len(self._node_ids)
            ):
                raise ValueError(f"there is no node {message.metadata.dst_node_id}")
            self._sent += 1
            message_id = str(self._sent)
            self._accept(self._stamped(message, message_id))
            message_ids.append(message_id)
        return message_ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies to these instructions, in this order, as they are taken.

        A reply can be taken once. The replies are made or waited for one by one while the result
        is iterated over, so no more of them are held than the caller holds. Ids whose reply was
        taken, or takes longer than a few seconds more, are passed over: ask again.
        """
        for message_id in message_ids:
            try:
                reply = self._reply(message_id, _PATIENCE)
            except KeyError:
                continue
            if reply is not None:
                yield self._stamped(reply, f"reply-{message_id}")

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Push, then pull every reply in order of the pushed messages, for at most ``timeout`` s.

        A reply that has not begun to be made by then is left out.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        replies = []
        for message_id in self.push_messages(messages):
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if left == 0.0:
                break
            reply = self._reply(message_id, left)
            if reply is not None:
                replies.append(self._stamped(reply, f"reply-{message_id}"))
        return replies

    def _stamped(self, message: Message, message_id: str) -> Message:
        """Copy a message, with an id and this run's id, and with records of its own."""
        metadata = restamped(message.metadata, run_id=self._run.run_id, message_id=message_id)
        content = _own(message.content) if message.has_content() else None
        return make_message(metadata, content, message.error if message.has_error() else None)


@contextmanager
def server_identity(run_id: int) -> Iterator[None]:
    """Let this process create instructions as the server of a run, as strategies do."""
    before = (TaskIdentity._run_id, TaskIdentity._node_id, TaskIdentity._task_id)
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = run_id, SUPERLINK_NODE_ID, 0
    try:
        yield
    finally:
        TaskIdentity._run_id, TaskIdentity._node_id, TaskIdentity._task_id = before


def node_context(node_id: int, clients: int, run_id: int) -> Context:
    """Return the context with which a node starts: empty state, and its partition's number."""
    node_config: UserConfig = {"partition-id": node_id - FIRST_NODE, "num-partitions": clients}
    return Context(run_id, node_id, node_config, RecordDict(), {})


def answer(app: ClientApp, message: Message, context: Context) -> Message:
    """Let a client answer a message; an exception of its becomes an error reply, as in Flower.

    The process's global generators (``random``, NumPy, torch) are afterwards as before, so a
    client that draws from them does not disturb the server or another client.
    """
    with generators_kept():
        try:
            reply = app(message, context)
            if not isinstance(reply, Message):
                raise TypeError(f"the ClientApp returned {type(reply).__name__}, not a Message")
        except Exception as error:  # noqa: BLE001 - whatever a client raises is its reply
            reason = f"{type(error).__name__}: {error}"
            reply = Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason), reply_to=message)
    return reply


def _own(content: RecordDict) -> RecordDict:
    """Copy records, lists and array handles, but not the arrays' bytes."""
    own = RecordDict()
    for name, record in content.items():
        if isinstance(record, ArrayRecord):
            own[name] = ArrayRecord({key: copy.copy(array) for key, array in record.items()})
        elif isinstance(record, MetricRecord):
            own[name] = MetricRecord({key: copy.copy(value) for key, value in record.items()})
        else:
            own[name] = ConfigRecord({key: copy.copy(value) for key, value in record.items()})
    return own


@contextmanager
def generators_kept() -> Iterator[None]:
    python = random.getstate()
    numpy = np.random.get_state()
    torch = sys.modules.get("torch")
    torch_state = torch.get_rng_state() if torch is not None else None
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        if torch is not None:
            torch.set_rng_state(torch_state)
