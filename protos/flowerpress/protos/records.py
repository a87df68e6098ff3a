"""What server and clients tell each other in Flower's messages, beside the blob.

One ``ConfigRecord`` named ``flowerpress`` in each direction: the *instruction* down, the
*receipt* up. Both are small, and neither holds anything that would be looked up or run by name:
the instruction's codec text goes through the same parser as a user's.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from flwr.app import ConfigRecord, RecordDict

from flowerpress.compression import FormatError

__all__ = ["RECORD", "Instruction", "Receipt", "Status"]

RECORD = "flowerpress"
PROTOCOL = 1
IDENTITY_BYTES = 8

T = TypeVar("T", int, str, bytes)


class Status(StrEnum):
    """How the client fared with an instruction."""

    OK = "ok"
    NEED_MODEL = "need-model"  # the client does not hold the version that the change starts from
    REFUSED = "refused"  # an error of the client's own; see error, field, message


@dataclass(frozen=True)
class Instruction:
    """What a client must know to take part in one round.

    ``version`` and ``digest`` name the model that it holds once the blob is applied; ``held`` is
    the version that the blob starts from (0: none needed). ``watermark`` is the last sequence
    number that the server took from this client. ``arrays`` is the record name under which the
    app expects its model, ``uplink`` the codec asked for, ``seed`` the root of the stochastic
    codecs' generators.
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

    def write(self, content: RecordDict) -> None:
        """Put the instruction into the content of a message."""
        content[RECORD] = ConfigRecord(
            {
                "protocol": PROTOCOL,
                # Flower's integers are signed; 64-bit identities travel as bytes.
                "run": self.run.to_bytes(IDENTITY_BYTES, "little"),
                "client": self.client.to_bytes(IDENTITY_BYTES, "little"),
                "round": self.round,
                "version": self.version,
                "held": self.held,
                "digest": self.digest,
                "watermark": self.watermark,
                "arrays": self.arrays,
                "uplink": self.uplink,
                "carrier": self.carrier,
                "seed": self.seed,
            }
        )

    @classmethod
    def read(cls, content: RecordDict) -> Instruction | None:
        """Return the instruction in ``content``, or None from a server that sends none.

        Raises:
            FormatError: a field is missing or of another type, or the protocol is another.
        """
        record = content.config_records.get(RECORD)
        if record is None:
            return None
        if _field(record, "protocol", int) != PROTOCOL:
            raise FormatError(
                "protocol", "the server speaks another version; upgrade the older side"
            )
        return cls(
            run=_identity(record, "run"),
            client=_identity(record, "client"),
            round=_count(record, "round"),
            version=_count(record, "version"),
            held=_count(record, "held"),
            digest=_field(record, "digest", bytes),
            watermark=_count(record, "watermark"),
            arrays=_field(record, "arrays", str),
            uplink=_field(record, "uplink", str),
            carrier=_field(record, "carrier", str),
            seed=_count(record, "seed"),
        )


@dataclass(frozen=True)
class Receipt:
    """What a client answers: how it fared, and which version of the model it holds now."""

    status: Status
    version: int
    digest: bytes = b""
    error: str = ""
    field: str = ""
    message: str = ""

    def write(self, content: RecordDict) -> None:
        """Put the receipt into the content of a reply."""
        content[RECORD] = ConfigRecord(
            {
                "protocol": PROTOCOL,
                "status": str(self.status),
                "version": self.version,
                "digest": self.digest,
                "error": self.error,
                "field": self.field,
                "message": self.message,
            }
        )

    @classmethod
    def read(cls, content: RecordDict) -> Receipt:
        """Return the receipt in ``content``.

        Raises:
            FormatError: missing, or a field is missing or of another type.
        """
        record = content.config_records.get(RECORD)
        if record is None:
            raise FormatError("receipt", "missing: does the ClientApp have the press() mod?")
        status = _field(record, "status", str)
        if status not in list(Status):
            raise FormatError("receipt.status", f"unknown status {status[:32]!r}")
        return cls(
            status=Status(status),
            version=_count(record, "version"),
            digest=_field(record, "digest", bytes),
            error=_field(record, "error", str)[:MAX_TEXT],
            field=_field(record, "field", str)[:MAX_TEXT],
            message=_field(record, "message", str)[:MAX_TEXT],
        )


# What a client says of its own error is shown to people; it need not be longer than this.
MAX_TEXT = 500


def _identity(record: ConfigRecord, name: str) -> int:
    value = _field(record, name, bytes)
    if len(value) != IDENTITY_BYTES:
        raise FormatError(name, f"{len(value)} bytes; an identity has {IDENTITY_BYTES}")
    return int.from_bytes(value, "little")


def _count(record: ConfigRecord, name: str) -> int:
    value = _field(record, name, int)
    if value < 0:
        raise FormatError(name, f"{value} is negative")
    return value


def _field(record: ConfigRecord, name: str, kind: type[T]) -> T:
    value = record.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise FormatError(name, f"missing, or not {kind.__name__}")
    return value
