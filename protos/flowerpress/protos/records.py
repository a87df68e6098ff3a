"""What server and clients tell each other in Flower's messages, beside the blob.

One ``ConfigRecord`` named ``flowerpress`` in each direction, with one protobuf message in it: the
*instruction* down, the *receipt* up. Neither holds anything that would be looked up or run by
name: the instruction's codec text goes through the same parser as a user's.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import Any, TypeVar

from flwr.app import ConfigRecord, RecordDict
from google.protobuf.message import DecodeError

from flowerpress.compression import FormatError, LimitError
from flowerpress.protos import records_pb2 as pb
from flowerpress.protos.verdict import UNDECIDED, Verdict

__all__ = ["RECORD", "Instruction", "Receipt", "Status"]

RECORD = "flowerpress"
_KEY = f"{RECORD}/1"  # the protocol's version
# Far more than any instruction or receipt needs.
_LARGEST = 1 << 20
# What a client says of its own error is shown to people: both ends cut it to so many characters.
_LONGEST_TEXT = 500
_TEXTS = ("error", "field", "message", "reason")
_MASSES = ("owed", "orphaned", "dropped")

_M = TypeVar("_M", pb.Instruction, pb.Receipt)


class Status(IntEnum):
    """How the client fared with an instruction."""

    OK = pb.Receipt.OK
    NEED_MODEL = pb.Receipt.NEED_MODEL  # it does not hold the version that the change starts from
    REFUSED = pb.Receipt.REFUSED  # an error of the client's own; see error, field, message


@dataclass(frozen=True)
class Instruction:
    """What a client must know to take part in one round.

    ``version`` and ``digest`` name the model that it holds once the blob is applied; ``held`` is
    the version that the blob starts from (0: none needed). ``watermark`` is the last sequence
    number that the server took from this client. ``arrays`` is the record name under which the
    app expects its model, ``uplink`` the codec asked for, ``seed`` the root of the stochastic
    codecs' generators.

    With ``plan_digest``, a plan is in force in place of ``uplink``: ``plan`` brings it, or what
    changed since the one that the client said it holds, or nothing if it has it. ``target_bytes``
    is what this client's whole message may take (0: no limit); one that knows its uplink keeps to
    the seconds of ``deadline`` as well (0: no limit). ``settings`` asks the client to
    measure what these codecs cost on the ``tensors`` of its update (indices in the manifest), in
    blocks of rows where one has more than ``split`` elements (0: never).

    ``verdict`` is on the client's last update. ``decay`` is what residuals are multiplied by each
    round, above 0 and up to 1.

    ``exchange`` is what the carrier must know in this round and ``claim`` what it comes for; both
    are empty where the blob rides in the message.
    """

    run: int
    round: int
    client: int
    version: int
    held: int
    digest: bytes
    watermark: int
    arrays: str
    uplink: str
    carrier: str
    seed: int
    plan_digest: bytes = b""
    plan: bytes = b""
    target_bytes: int = 0
    settings: tuple[str, ...] = ()
    tensors: tuple[int, ...] = ()
    split: int = 0
    deadline: float = 0.0
    verdict: Verdict = UNDECIDED
    decay: float = 1.0
    exchange: bytes = b""
    claim: bytes = b""

    def write(self, content: RecordDict) -> None:
        """Put the instruction into the content of a message."""
        fields = asdict(self)
        fields |= _cut(fields.pop("verdict"))
        # What says nothing is left out: it is the same to who does not know these fields.
        fields = {k: v for k, v in fields.items() if k not in ("factor", "decay") or v != 1.0}
        _write(content, pb.Instruction(**fields))

    @classmethod
    def read(cls, content: RecordDict) -> Instruction | None:
        """Return the instruction in ``content``, or None from a server that sends none.

        Raises:
            WireError: not an instruction, or one of another protocol version.
        """
        record = content.get(RECORD)
        if not isinstance(record, ConfigRecord):
            return None
        fields = _cut(_fields(_read(record, pb.Instruction())))
        said = (fields.pop(name) for name in ("outcome", "factor", "reason"))
        fields["verdict"] = Verdict.received(*said)
        fields["decay"] = fields["decay"] or 1.0
        if not 0.0 < fields["decay"] <= 1.0:
            raise FormatError("decay", f"{fields['decay']} is not above 0 and up to 1")
        return cls(**fields)


@dataclass(frozen=True)
class Receipt:
    """What a client answers: how it fared, and which version of the model it holds now.

    ``plan_digest`` names the plan that it holds, ``uplink_rate`` is what it believes its uplink to
    have (bits a second, 0: unknown), ``points`` is what it measured where it was asked to, and
    ``claim`` what the carrier says of the blob that it moved (empty: that rides in the message).

    Three sums of absolute values: ``owed`` is what its residual holds, ``orphaned`` what it gave up
    in this run because nobody can tell whether it was applied, ``dropped`` what was left out on
    purpose (clipped, rejected, decayed).
    """

    status: Status
    version: int
    digest: bytes = b""
    error: str = ""
    field: str = ""
    message: str = ""
    plan_digest: bytes = b""
    uplink_rate: float = 0.0
    points: bytes = b""
    owed: float = 0.0
    orphaned: float = 0.0
    dropped: float = 0.0
    claim: bytes = b""

    def write(self, content: RecordDict) -> None:
        """Put the receipt into the content of a reply."""
        _write(content, pb.Receipt(**_cut(asdict(self))))

    @classmethod
    def read(cls, content: RecordDict) -> Receipt:
        """Return the receipt in ``content``.

        Raises:
            WireError: missing, or not a receipt of this protocol version.
        """
        record = content.get(RECORD)
        if not isinstance(record, ConfigRecord):
            raise FormatError("receipt", "missing: does the ClientApp have the press() mod?")
        fields = _fields(_read(record, pb.Receipt()))
        if fields["status"] not in list(Status):
            raise FormatError("receipt.status", f"unknown status {fields['status']}")
        fields["status"] = Status(fields["status"])
        for name in _MASSES:
            if not 0.0 <= fields[name] < math.inf:
                raise FormatError(f"receipt.{name}", f"{fields[name]} is no sum of magnitudes")
        return cls(**_cut(fields))


def _write(content: RecordDict, message: pb.Instruction | pb.Receipt) -> None:
    content[RECORD] = ConfigRecord({_KEY: message.SerializeToString(deterministic=True)})


def _read(record: ConfigRecord, message: _M) -> _M:
    name = type(message).__name__.lower()
    text = record.get(_KEY)
    if not isinstance(text, bytes):
        raise FormatError(name, "the other side speaks another version; upgrade the older one")
    if len(text) > _LARGEST:
        raise LimitError(name, f"{len(text)} bytes, at most {_LARGEST} are accepted")
    try:
        message.ParseFromString(text)
    except DecodeError as error:
        raise FormatError(name, "not a protobuf message") from error
    return message


def _cut(fields: dict[str, Any]) -> dict[str, Any]:
    return {k: v[:_LONGEST_TEXT] if k in _TEXTS else v for k, v in fields.items()}


def _fields(message: pb.Instruction | pb.Receipt) -> dict[str, Any]:
    values = ((field, getattr(message, field.name)) for field in message.DESCRIPTOR.fields)
    return {f.name: tuple(value) if f.is_repeated else value for f, value in values}
