"""The bytes of a deployment from the codec to the wire, in tables that add up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.box import SIMPLE
from rich.table import Table

from flowerpress.simulations.client_bytes import WIRE
from flowerpress.simulations.human import NOTHING, percent
from flowerpress.simulations.metrics import RoundRecord

__all__ = ["AUDIT_COLUMNS", "CLIENT_COLUMNS", "audit_cells", "audit_table", "client_cells"]

AUDIT_COLUMNS = ("Bytes", "Up", "Of the wire", "Down", "Of the wire")
CLIENT_COLUMNS = ("Round", "Client", "Way", "Codec", "Message", "Wire", "Unexplained")

_NAMES = {
    "codec": "codec payload",
    "envelope": "envelope of updates",
    "repeated": "sent again after a break",
    "messages": "claims, offsets, acknowledgements",
    "grpc": "gRPC: 5 before each message",
    "http2": "HTTP/2 frames",
    "tls": "TLS records",
    "handshake": "TLS handshakes",
}
_MESSAGE = ("codec", "envelope", "repeated", "messages")


def audit_cells(records: Sequence[RoundRecord]) -> list[list[str]]:
    """Return a row for each part of what was counted on the wire, with sums; nothing without any.

    The rows "message" and "wire" are the second and third level; above each stands what it has more
    than the level before.
    """
    sums = {way: _sum(records, way) for way in ("up", "down")}
    if not any(total[WIRE] for total in sums.values()):
        return []
    rows = []
    for name, title in _NAMES.items():
        rows.append(_row(title, {way: total[name] for way, total in sums.items()}, sums))
        if name == _MESSAGE[-1]:
            levels = {way: sum(total[n] for n in _MESSAGE) for way, total in sums.items()}
            rows.append(_row("= messages", levels, sums))
    left = {way: total[WIRE] - sum(total[n] for n in _NAMES) for way, total in sums.items()}
    rows.append(_row("unexplained", left, sums))
    rows.append(_row("= wire", {way: total[WIRE] for way, total in sums.items()}, sums))
    return rows


def audit_table(records: Sequence[RoundRecord]) -> Table | None:
    """Return ``audit_cells`` for a terminal, None where nothing was counted."""
    rows = audit_cells(records)
    if not rows:
        return None
    table = Table(box=SIMPLE, title="Bytes on the wire, all rounds and clients")
    for at, column in enumerate(AUDIT_COLUMNS):
        table.add_column(column, justify="right" if at else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def client_cells(records: Sequence[RoundRecord]) -> list[list[str]]:
    """Return the three levels of each round, client and direction that was counted on the wire."""
    rows = []
    for record in records:
        for client in record.client_bytes:
            for way, parts in (("up", client.up), ("down", client.down)):
                if WIRE not in parts:
                    continue
                left = parts[WIRE] - sum(parts[name] for name in _NAMES)
                levels = (parts["codec"], sum(parts[name] for name in _MESSAGE), parts[WIRE], left)
                numbers = [f"{level:,}" for level in levels]
                rows.append([str(record.round), str(client.client), way, *numbers])
    return rows


def _sum(records: Sequence[RoundRecord], way: str) -> Counter[str]:
    total: Counter[str] = Counter()
    for record in records:
        for client in record.client_bytes:
            parts = client.up if way == "up" else client.down
            if WIRE in parts:
                total.update(parts)
    return total


def _row(title: str, values: dict[str, int], sums: dict[str, Counter[str]]) -> list[str]:
    row = [title]
    for way, value in values.items():
        wire = sums[way][WIRE]
        # Rounded first: what is nearly nothing has no sign.
        row += [f"{value:,}", percent(round(value / wire, 4) + 0.0, 2) if wire else NOTHING]
    return row
