"""What the parts of a server say of their state, and how they become one snapshot and parts again.

A part gives its state as a ``Snapshot`` and takes it back; it knows nothing of files or of others.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Protocol

from flwr.app import Array, ArrayRecord

from flowerpress.compression import Manifest, TensorSpec
from flowerpress.protos.store import Snapshot

__all__ = [
    "Stateful",
    "as_blob",
    "from_blob",
    "joined",
    "manifest_of",
    "pack_manifest",
    "pack_record",
    "part",
    "unpack_record",
]


class Stateful(Protocol):
    """Something that goes on after a restart where it was."""

    def state(self) -> Snapshot:
        """Return all that a new object of this kind needs to behave like this one."""

    def restore(self, snapshot: Snapshot) -> None:
        """Become what the object was that returned ``snapshot``."""


def joined(parts: Mapping[str, Snapshot]) -> Snapshot:
    """Return one snapshot of several, by names without a slash."""
    return Snapshot(
        {name: dict(each.facts) for name, each in parts.items()},
        {f"{name}/{key}": a for name, each in parts.items() for key, a in each.arrays.items()},
        {f"{name}/{key}": b for name, each in parts.items() for key, b in each.blobs.items()},
    )


def part(whole: Snapshot, name: str) -> Snapshot:
    """Return one of the snapshots that were joined; an empty one if there was none of that name."""
    start = f"{name}/"
    return Snapshot(
        whole.facts.get(name, {}),
        {key.removeprefix(start): a for key, a in whole.arrays.items() if key.startswith(start)},
        {key.removeprefix(start): b for key, b in whole.blobs.items() if key.startswith(start)},
    )


def as_blob(facts: Any) -> bytes:
    """Return facts that grow with every round as bytes: a file's header has room for few facts."""
    return json.dumps(facts, allow_nan=False).encode()


def from_blob(blob: bytes) -> Any:
    """Return what ``as_blob`` was given."""
    return json.loads(blob)


def pack_record(record: ArrayRecord) -> Snapshot:
    """Return Flower's arrays as they are, whatever their serialization."""
    own = [[name, a.dtype, list(a.shape), a.stype] for name, a in record.items()]
    return Snapshot({"arrays": own}, blobs={str(i): a.data for i, a in enumerate(record.values())})


def unpack_record(snapshot: Snapshot) -> ArrayRecord:
    """Return what ``pack_record`` was given."""
    own = enumerate(snapshot.facts["arrays"])
    return ArrayRecord(
        {
            name: Array(dtype=dtype, shape=tuple(shape), stype=stype, data=snapshot.blobs[str(i)])
            for i, (name, dtype, shape, stype) in own
        }
    )


def pack_manifest(manifest: Manifest) -> list[Any]:
    """Return a manifest as facts."""
    return [[spec.name, list(spec.shape), spec.dtype] for spec in manifest.specs]


def manifest_of(facts: list[Any]) -> Manifest:
    """Return what ``pack_manifest`` was given."""
    return Manifest(tuple(TensorSpec(name, tuple(shape), dtype) for name, shape, dtype in facts))
