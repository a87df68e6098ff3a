"""The messages of an exchange of blobs: packing, and reading what a stranger sent.

A blob needs no checksum on each of its pieces: it is claimed with its length and SHA-256 digest,
and what arrives in full and is not that is dropped.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import IntEnum
from typing import Self

from google.protobuf.message import DecodeError

from flowerpress.compression import FormatError, LimitError
from flowerpress.protos import exchange_pb2 as pb

__all__ = [
    "LARGEST_MESSAGE",
    "LARGEST_PROBE",
    "METHOD",
    "BlobClaim",
    "Code",
    "ExchangeMessage",
    "Kind",
    "channel_options",
    "pack_exchange",
    "unpack_exchange",
]

METHOD = "/flowerpress.v1.Exchange/Move"
LARGEST_MESSAGE = 1 << 20
"""Bytes of a message; its chunk has at most half of that."""
LARGEST_PROBE = 1 << 20
"""Bytes in each direction that a link may be measured with."""

DIGEST = 32
_LONGEST_TOKEN = 64
_LONGEST_TEXT = 500
_LONGEST_CLAIM = 64


class Kind(IntEnum):
    """What a message is for; see ``exchange.proto``."""

    UPLOAD = pb.Exchange.UPLOAD
    DOWNLOAD = pb.Exchange.DOWNLOAD
    CHUNK = pb.Exchange.CHUNK
    ACK = pb.Exchange.ACK
    DONE = pb.Exchange.DONE
    ERROR = pb.Exchange.ERROR
    PROBE = pb.Exchange.PROBE


class Code(IntEnum):
    """What an ERROR says."""

    MALFORMED = 1
    TOKEN = 2
    ROUND = 3
    DEADLINE = 4
    LIMIT = 5
    OFFSET = 6
    DIGEST = 7
    BUSY = 8
    SILENT = 9
    UNKNOWN = 10
    STALE = 11
    REPLACED = 12
    INTERNAL = 13


@dataclass(frozen=True)
class BlobClaim:
    """What a blob is said to be: its sequence number, length in bytes and SHA-256 digest."""

    sequence: int
    length: int
    digest: bytes

    @classmethod
    def of(cls, blob: bytes, sequence: int) -> Self:
        """Return the true claim of ``blob``."""
        return cls(sequence, len(blob), hashlib.sha256(blob).digest())

    def pack(self) -> bytes:
        """Return the claim as bytes."""
        claim: bytes = _claim(self).SerializeToString(deterministic=True)
        return claim

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """Return the claim in hostile ``data``.

        Raises:
            WireError: it is no claim, or claims nothing.
        """
        if len(data) > _LONGEST_CLAIM:
            raise LimitError("claim", f"{len(data)} bytes, at most {_LONGEST_CLAIM} are accepted")
        try:
            parsed = pb.BlobClaim.FromString(data)
        except DecodeError as error:
            raise FormatError("claim", "is not a claim of this protocol") from error
        return cls._checked(parsed)

    @classmethod
    def _checked(cls, parsed: pb.BlobClaim) -> Self:
        if len(parsed.digest) != DIGEST:
            raise FormatError("claim.digest", f"has {len(parsed.digest)} bytes, not {DIGEST}")
        if not parsed.length:
            raise FormatError("claim.length", "is zero; an empty blob is not sent")
        return cls(parsed.sequence, parsed.length, parsed.digest)


@dataclass(frozen=True)
class ExchangeMessage:
    """One message; which fields mean something depends on ``kind``."""

    kind: Kind
    offset: int = 0
    data: bytes = b""
    claim: BlobClaim | None = None
    run: int = 0
    round: int = 0
    client: int = 0
    token: bytes = b""
    code: int = 0
    text: str = ""


def pack_exchange(message: ExchangeMessage) -> bytes:
    """Return the bytes of ``message``."""
    packed: bytes = pb.Exchange(
        kind=int(message.kind),  # type: ignore[arg-type]
        offset=message.offset,
        data=message.data,
        claim=None if message.claim is None else _claim(message.claim),
        run=message.run,
        round=message.round,
        client=message.client,
        token=message.token,
        code=message.code,
        text=message.text[:_LONGEST_TEXT],
    ).SerializeToString()
    return packed


def unpack_exchange(data: bytes) -> ExchangeMessage:
    """Return the message in hostile ``data``.

    Raises:
        WireError: it is no message, or one that no sender writes.
    """
    if len(data) > LARGEST_MESSAGE:
        raise LimitError("message", f"has {len(data)} bytes; {LARGEST_MESSAGE} are allowed")
    try:
        parsed = pb.Exchange.FromString(data)
    except DecodeError as error:
        raise FormatError("message", "is not a message of this protocol") from error
    try:
        kind = Kind(parsed.kind)
    except ValueError:
        raise FormatError("message.kind", f"is {parsed.kind}; is the sender newer?") from None
    for name, longest in (("token", _LONGEST_TOKEN), ("text", _LONGEST_TEXT)):
        if len(getattr(parsed, name)) > longest:
            raise LimitError(f"message.{name}", f"is longer than {longest}")
    if kind in (Kind.CHUNK, Kind.PROBE) and not parsed.data:
        raise FormatError("message.data", "is empty")
    claim = None
    if kind in (Kind.UPLOAD, Kind.DOWNLOAD):
        claim = BlobClaim._checked(parsed.claim)
    return ExchangeMessage(
        kind,
        parsed.offset,
        parsed.data,
        claim,
        parsed.run,
        parsed.round,
        parsed.client,
        parsed.token,
        parsed.code,
        parsed.text,
    )


def channel_options() -> list[tuple[str, int]]:
    """Return the options of both ends' channels: caps, and how a dead peer is noticed."""
    # What is too long is answered in words, up to a point.
    longest = LARGEST_MESSAGE + (1 << 16)
    return [
        ("grpc.max_receive_message_length", longest),
        ("grpc.max_send_message_length", longest),
        # A thin link takes seconds to let a ping pass behind what is under way.
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 30_000),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        # What is under way is bounded by acknowledgements of our own (see window.py): HTTP/2 need
        # not measure the link as well, which takes a ping for every few packets.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", 2 * LARGEST_MESSAGE),
        ("grpc.so_reuseport", 0),
        # A link has a connection of its own, and is back soon after a service is.
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 2_000),
    ]


def _claim(claim: BlobClaim) -> pb.BlobClaim:
    return pb.BlobClaim(sequence=claim.sequence, length=claim.length, digest=claim.digest)
