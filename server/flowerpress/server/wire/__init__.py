"""Bytes on the wire: a front that counts them before a gRPC port, and what they consist of."""

from __future__ import annotations

from flowerpress.server.wire.connections import Connection, OneWay
from flowerpress.server.wire.front import Front
from flowerpress.server.wire.items import ITEMS, Ledger, ledger

__all__ = ["ITEMS", "Connection", "Front", "Ledger", "OneWay", "ledger"]
