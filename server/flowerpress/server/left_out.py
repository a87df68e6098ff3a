"""Who was left out of which round, and why."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple
from logging import WARNING

from flwr.app import Message
from flwr.common.constant import ErrorCode
from flwr.supercore import log

from flowerpress.compression import WireError
from flowerpress.protos.store import Snapshot
from flowerpress.server.intake import ClientRefusedError, Rejection
from flowerpress.server.snapshots import as_blob, from_blob

__all__ = ["LeftOut"]

# What the SuperLink answers in place of a node that is gone or a reply that was lost on its way.
_NO_REPLY = (
    ErrorCode.NODE_UNAVAILABLE,
    ErrorCode.REPLY_MESSAGE_UNAVAILABLE,
    ErrorCode.MESSAGE_UNAVAILABLE,
)

# Of what is said of a client that was left out; it is shown in reports.
LONGEST_REASON = 500


class LeftOut:
    """Collects rejections of all rounds of a run.

    Attributes:
        rejections: in the order in which they happened.
    """

    def __init__(self) -> None:
        self.rejections: list[Rejection] = []

    def state(self) -> Snapshot:
        """Return the rejections."""
        found = [list(astuple(each)) for each in self.rejections]
        return Snapshot(blobs={"rejections": as_blob(found)})

    def restore(self, snapshot: Snapshot) -> None:
        """Go on from what ``state()`` returned."""
        self.rejections = [Rejection(*each) for each in from_blob(snapshot.blobs["rejections"])]

    def forget(self, before: int) -> None:
        """Forget the rounds before ``before``."""
        self.rejections = [each for each in self.rejections if each.round >= before]

    def count(self, server_round: int) -> int:
        """Return how many clients were left out of a round."""
        return len({r.node for r in self.rejections if r.round == server_round})

    def reasons(self, server_round: int) -> dict[int, str]:
        """Return why clients were left out of a round, by node."""
        return {r.node: r.message for r in self.rejections if r.round == server_round}

    def refuse(self, server_round: int, node: int, error: WireError) -> None:
        """Note a client whose reply did not pass."""
        name = error.name if isinstance(error, ClientRefusedError) else type(error).__name__
        text = error.text if isinstance(error, ClientRefusedError) else str(error)
        self.note(server_round, node, name, error.field, text)

    def failed(self, server_round: int, reply: Message) -> None:
        """Note a client that answered with an error, or for which Flower did."""
        reason = (reply.error.reason or "no reason given").strip()
        name = "NoReply" if reply.error.code in _NO_REPLY else "ClientAppError"
        self.note(server_round, reply.metadata.src_node_id, name, "", reason)

    def silent(self, server_round: int, nodes: Iterable[int]) -> None:
        """Note clients of which nothing came in time."""
        for node in nodes:
            self.note(server_round, node, "NoReply", "", "no reply before the deadline")

    def note(self, server_round: int, node: int, error: str, field: str, message: str) -> None:
        """Note one client: the error's name, the field at fault (may be empty), and words.

        All three may be a client's own, and are kept for the whole run: they are cut.
        """
        error, field, message = (text[:LONGEST_REASON] for text in (error, field, message))
        log(
            WARNING,
            "flowerpress: node %d left out of round %d: %s",
            node,
            server_round,
            message,
        )
        self.rejections.append(Rejection(server_round, node, error, field, message))
