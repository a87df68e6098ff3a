"""How an engine and its worker processes talk: frames of kind, length and payload on a pipe.

The payload is JSON, text or one of Flower's messages as Flower itself serializes it. Both ends
are the same program on the same machine; still, nothing here can run code that was sent.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import BinaryIO

from flwr.app import Message
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage

__all__ = ["Kind", "from_bytes", "read_frame", "to_bytes", "write_frame"]

_HEAD = struct.Struct("<BQ")


class Kind(IntEnum):
    """What a frame holds."""

    HELLO = 1  # to the worker: JSON, what it works on
    READY = 2  # from the worker: it can take messages
    CALL = 3  # to the worker: an instruction
    REPLY = 4  # from the worker: the reply to the oldest instruction not yet answered
    FAILED = 5  # from the worker: text, why it cannot go on


def write_frame(pipe: BinaryIO, kind: Kind, payload: bytes) -> None:
    """Write one frame and flush it."""
    pipe.write(_HEAD.pack(kind, len(payload)))
    pipe.write(payload)
    pipe.flush()


def read_frame(pipe: BinaryIO) -> tuple[Kind, bytes] | None:
    """Read one frame; ``None`` where the pipe ends, be it in the middle of a frame."""
    head = pipe.read(_HEAD.size)
    if len(head) < _HEAD.size:
        return None
    kind, length = _HEAD.unpack(head)
    payload = pipe.read(length)
    return (Kind(kind), payload) if len(payload) == length else None


def to_bytes(message: Message) -> bytes:
    """Serialize one of Flower's messages."""
    return bytes(message_to_proto(message).SerializeToString())


def from_bytes(data: bytes) -> Message:
    """Read what ``to_bytes`` wrote."""
    return message_from_proto(ProtoMessage.FromString(data))
