"""Messages as bytes: envelopes of updates, records in Flower's messages, carriers of blobs.

Names are imported when first used: whoever only reads updates (a gateway, an archive) needs
protobuf and not Flower.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowerpress.protos.arrays import to_numpy, to_record
    from flowerpress.protos.carrier import Carrier, Carriers, MessageCarrier
    from flowerpress.protos.delivery import MAX_UPDATES, join_updates, split_updates
    from flowerpress.protos.envelope import Kind, Update, largest_blob, pack, unpack
    from flowerpress.protos.records import RECORD, Instruction, Receipt, Status
    from flowerpress.protos.stamps import restamped
    from flowerpress.protos.verdict import APPLIED, UNDECIDED, Outcome, Verdict

__all__ = [
    "APPLIED",
    "MAX_UPDATES",
    "RECORD",
    "UNDECIDED",
    "Carrier",
    "Carriers",
    "Instruction",
    "Kind",
    "MessageCarrier",
    "Outcome",
    "Receipt",
    "Status",
    "Update",
    "Verdict",
    "join_updates",
    "largest_blob",
    "pack",
    "restamped",
    "split_updates",
    "to_numpy",
    "to_record",
    "unpack",
]

_MODULES = {
    "arrays": ("to_numpy", "to_record"),
    "carrier": ("Carrier", "Carriers", "MessageCarrier"),
    "delivery": ("MAX_UPDATES", "join_updates", "split_updates"),
    "envelope": ("Kind", "Update", "largest_blob", "pack", "unpack"),
    "records": ("RECORD", "Instruction", "Receipt", "Status"),
    "stamps": ("restamped",),
    "verdict": ("APPLIED", "UNDECIDED", "Outcome", "Verdict"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


if not TYPE_CHECKING:  # a checker must still refuse names that do not exist

    def __getattr__(name: str) -> Any:
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
