"""The same instruction once more: the same answer, from the journal, without training again.

A server that died within a round and was resumed asks again; so does one whose SuperNode died after
the record was written. Training again would make another update of the same data, and the one that
was sent may still arrive.
"""

from __future__ import annotations

from flwr.app import ArrayRecord, RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.recorddict_pb2 import RecordDict as ProtoRecordDict
from google.protobuf.message import DecodeError

from flowerpress.client.held import Held
from flowerpress.compression import FormatError, Manifest
from flowerpress.protos import Instruction, to_numpy, unpack

__all__ = ["kept_records", "repeated"]


def kept_records(content: RecordDict, key: str) -> bytes:
    """Return the records of a reply as bytes, with an empty record in the place of the update."""
    records = {name: ArrayRecord() if name == key else r for name, r in content.items()}
    text: bytes = recorddict_to_proto(RecordDict(records)).SerializeToString(deterministic=True)
    return text


def repeated(held: Held, instruction: Instruction) -> tuple[str, RecordDict] | None:
    """Return the answer to an instruction that was answered before, or None if this is another.

    Returns:
        the record name of the update, which is still to be attached, and the other records.

    Raises:
        WireError: what is held is not what was written.
    """
    if not held.pending or not held.records or instruction.watermark >= held.sequence:
        return None
    sent = unpack(held.pending, Manifest.of(to_numpy(held.model)))
    due = (instruction.round, instruction.client, instruction.digest)
    if (sent.round, sent.client, sent.base) != due:
        return None
    try:
        content = recorddict_from_proto(ProtoRecordDict.FromString(held.records))
    except (DecodeError, ValueError) as error:
        raise FormatError("records", "the journal holds no records of a reply") from error
    (key,) = content.array_records
    return key, content
