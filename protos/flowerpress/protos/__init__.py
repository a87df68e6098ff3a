"""Messages as bytes: envelopes of updates, records in Flower's messages, carriers of blobs."""

from __future__ import annotations

from flowerpress.protos.carrier import Carrier, MessageCarrier
from flowerpress.protos.delivery import join, split
from flowerpress.protos.envelope import Kind, Update, largest_blob, pack, unpack
from flowerpress.protos.records import RECORD, Instruction, Receipt, Status

__all__ = [
    "RECORD",
    "Carrier",
    "Instruction",
    "Kind",
    "MessageCarrier",
    "Receipt",
    "Status",
    "Update",
    "join",
    "largest_blob",
    "pack",
    "split",
    "unpack",
]
