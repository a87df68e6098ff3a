"""The messages of a split network: packing, and reading what a stranger sent.

On the wire a message is a checksum of eight bytes, then protobuf (``split.proto``). The checksum is
a BLAKE2b keyed with the session's key, which only the two ends of that session have, so a message
of another session or run is not accepted in this one; before there is a session the key is
``HELLO``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import IntEnum
from hashlib import blake2b
from hmac import compare_digest
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from flowerpress.compression import (
    ChecksumError,
    FormatError,
    LimitError,
    NonFiniteError,
    TruncatedError,
)
from flowerpress.protos import split_pb2 as pb

__all__ = [
    "HELLO",
    "METHOD",
    "SESSION",
    "Code",
    "Kind",
    "SplitLimits",
    "SplitMessage",
    "channel_options",
    "client_token",
    "pack_labels",
    "pack_split",
    "unpack_labels",
    "unpack_split",
]

METHOD = "/flowerpress.v1.Split/Exchange"
HELLO = b"flowerpress.split/1"
SESSION = 16
"""Bytes of a session's key."""

_CHECKSUM = 8
_DIMENSIONS = 8
_LONGEST_TEXT = 500
_LONGEST = {"token": 64, "session": SESSION, "tables_digest": 8, "mode": 16, "text": _LONGEST_TEXT}
_LONGEST |= {"features": 200, "gradients": 200, "cut": 200}


class Kind(IntEnum):
    """What a message is for; see ``split.proto``."""

    OPEN = pb.Split.OPEN
    ACK = pb.Split.ACK
    FEATURES = pb.Split.FEATURES
    GRADIENT = pb.Split.GRADIENT
    TAIL_INPUT = pb.Split.TAIL_INPUT
    TAIL_GRADIENT = pb.Split.TAIL_GRADIENT
    INFER = pb.Split.INFER
    PREDICTION = pb.Split.PREDICTION
    ERROR = pb.Split.ERROR
    CLOSE = pb.Split.CLOSE


class Code(IntEnum):
    """What an ERROR says."""

    MALFORMED = 1
    CHECKSUM = 2
    SHAPE = 3
    NOT_FINITE = 4
    STALE_TABLES = 5
    UNKNOWN_STEP = 6
    BUSY = 7
    DEADLINE = 8
    TOKEN = 9
    ROUND = 10
    MODE = 11
    LIMIT = 12
    INTERNAL = 13
    TURN = 14  # another client's turn: to be asked again at once


@dataclass(frozen=True)
class SplitLimits:
    """What one end allows the other; checked before anything is allocated.

    ``largest``: bytes of a message. ``elements``: of an array. ``clients``: streams at the same
    time. ``channels``: of tables.
    """

    largest: int = 16 << 20
    elements: int = 1 << 24
    clients: int = 256
    channels: int = 4096


@dataclass(frozen=True)
class SplitMessage:
    """One message; which fields mean something depends on ``kind``."""

    kind: Kind
    step: int = 0
    round: int = 0
    run: int = 0
    client: int = 0
    token: bytes = b""
    session: bytes = b""
    mode: str = ""
    restart: bool = False
    tables_version: int = 0
    tables_digest: bytes = b""
    tables: bytes = b""
    features: str = ""
    gradients: str = ""
    shape: tuple[int, ...] = ()
    payload: bytes = b""
    label_shape: tuple[int, ...] = ()
    classes: int = 0
    labels: bytes = b""
    loss: float = 0.0
    code: int = 0
    text: str = ""
    largest: int = 0
    cut: str = ""
    patience: float = 0.0

    @property
    def elements(self) -> int:
        """Elements of the array in ``payload``."""
        return math.prod(self.shape)


_FIELDS = tuple(each.name for each in fields(SplitMessage))


def pack_split(message: SplitMessage, key: bytes) -> bytes:
    """Return the bytes of ``message`` under the session's ``key``."""
    given: dict[str, Any] = {name: getattr(message, name) for name in _FIELDS}
    given["text"] = given["text"][:_LONGEST_TEXT]
    body: bytes = pb.Split(**given).SerializeToString()
    return _checksum(body, key) + body


def unpack_split(data: bytes, key: bytes, limits: SplitLimits) -> SplitMessage:
    """Return the message in hostile ``data``.

    Raises:
        ChecksumError: it was changed on its way, or belongs to another session.
        WireError: it is no message, or one that no sender writes or that the limits forbid.
    """
    if len(data) > limits.largest:
        raise LimitError("message", f"has {len(data)} bytes; {limits.largest} are allowed")
    if len(data) < _CHECKSUM:
        raise TruncatedError("message", "is shorter than its checksum")
    body = data[_CHECKSUM:]
    if not compare_digest(data[:_CHECKSUM], _checksum(body, key)):
        raise ChecksumError("message", "was changed on its way, or is of another session")
    try:
        parsed = pb.Split.FromString(body)
    except DecodeError as error:
        raise FormatError("message", "is not a message of this protocol") from error
    values = {name: getattr(parsed, name) for name in _FIELDS}
    try:
        values["kind"] = Kind(values["kind"])
    except ValueError:
        raise FormatError("message.kind", f"is {values['kind']}; is the sender newer?") from None
    for name, longest in _LONGEST.items():
        if len(values[name]) > longest:
            raise LimitError(f"message.{name}", f"is longer than {longest}")
    for name in ("shape", "label_shape"):
        if len(values[name]) > _DIMENSIONS:
            raise LimitError(f"message.{name}", f"has more than {_DIMENSIONS} dimensions")
        shape = values[name] = tuple(values[name])
        if math.prod(shape) > limits.elements:
            raise LimitError(
                f"message.{name}", f"is {shape}; {limits.elements} elements are allowed"
            )
    for name in ("loss", "patience"):
        if not math.isfinite(values[name]):
            raise NonFiniteError(f"message.{name}", "is NaN or infinite")
    return SplitMessage(**values)


def pack_labels(labels: NDArray[np.int64], classes: int) -> bytes:
    """Return ``labels``, each from 0 to ``classes - 1``, in ceil(log2 classes) bits.

    Raises:
        ValueError: a label outside.
    """
    flat = labels.reshape(-1)
    if flat.size and not 0 <= int(flat.min()) <= int(flat.max()) < classes:
        raise ValueError(f"labels must be from 0 to {classes - 1}")
    width = _width(classes)
    bits = (flat[:, None] >> np.arange(width)) & 1
    return np.packbits(bits.astype(np.uint8).reshape(-1), bitorder="little").tobytes()


def unpack_labels(body: bytes, shape: Sequence[int], classes: int) -> NDArray[np.int64]:
    """Return the labels (``shape``) in hostile ``body``.

    Raises:
        WireError: another length, or a label of ``classes`` and more.
    """
    if not 1 <= classes <= 1 << 24:
        raise FormatError("message.classes", f"is {classes}")
    width, count = _width(classes), math.prod(shape)
    if len(body) != (width * count + 7) // 8:
        raise FormatError("message.labels", f"has {len(body)} bytes for {count} of {width} bits")
    bits = np.unpackbits(np.frombuffer(body, np.uint8), bitorder="little")
    rows = bits[: width * count].reshape(count, width).astype(np.int64)
    labels: NDArray[np.int64] = (rows << np.arange(width)).sum(1, dtype=np.int64)
    if bits[width * count :].any() or (labels >= classes).any():
        raise FormatError("message.labels", f"holds a label of {classes} and more")
    return labels.reshape(tuple(shape))


def client_token(secret: bytes, client: int) -> bytes:
    """Return the token of one client, 16 bytes: with it, nobody can take another's place.

    Args:
        secret: of the round, at most 64 bytes; only the service and who opens the round have it.
        client: number of the client.
    """
    return blake2b(client.to_bytes(8, "little"), digest_size=16, key=secret).digest()


def channel_options(limits: SplitLimits) -> list[tuple[str, int]]:
    """Return the options of both ends' channels: caps, and how a dead peer is noticed."""
    # What is too long is answered in words, up to a point.
    longest = limits.largest + (1 << 20)
    return [
        ("grpc.max_receive_message_length", longest),
        ("grpc.max_send_message_length", longest),
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.so_reuseport", 0),
        # A link has a connection of its own, and is back soon after a service is.
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 2_000),
    ]


def _width(classes: int) -> int:
    return (classes - 1).bit_length()


def _checksum(body: bytes, key: bytes) -> bytes:
    return blake2b(body, digest_size=_CHECKSUM, key=key).digest()
