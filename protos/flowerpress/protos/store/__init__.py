"""What a client or a server must find again after its process died: generations on disk."""

from __future__ import annotations

from flowerpress.protos.store.generations import Store
from flowerpress.protos.store.snapshot import Snapshot

__all__ = ["Snapshot", "Store"]
