"""Flower's message metadata, copied with a few fields changed."""

from __future__ import annotations

from typing import Any

from flwr.app import Metadata

__all__ = ["restamped"]


def restamped(old: Metadata, **changes: Any) -> Metadata:
    """Return a copy of ``old`` with ``changes``; Flower offers neither a copy nor setters."""
    fields: dict[str, Any] = {
        "run_id": old.run_id,
        "message_id": old.message_id,
        "src_node_id": old.src_node_id,
        "dst_node_id": old.dst_node_id,
        "reply_to_message_id": old.reply_to_message_id,
        "group_id": old.group_id,
        "created_at": old.created_at,
        "ttl": old.ttl,
        "message_type": old.message_type,
    }
    return Metadata(**(fields | changes))
