"""The table of an update's tensors: what each takes, keeps and loses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from flowerpress.simulations.fitted import Column, FittedTable

if TYPE_CHECKING:
    from rich.console import RenderableType

    from flowerpress.simulations.checkpoints.packing import Cost

__all__ = ["tensor_table"]


def tensor_table(costs: Sequence[Cost], total: int) -> list[RenderableType]:
    """Return the table, and what is true of all tensors below it.

    Args:
        costs: the tensors, in order.
        total: bytes of the whole, with everything that is not a tensor's own.
    """
    columns = [
        Column("tensor", text=True),
        Column("shape", text=True, drop=2),
        Column("bytes"),
        Column("bits", drop=4),
        Column("kept", drop=1),
        Column("NMSE", drop=5),
        Column("dtype", text=True, drop=0),
        Column("codec", text=True, drop=3),
    ]
    plain = {cost.spec.dtype for cost in costs} == {"float32"}
    shared = len({cost.codec for cost in costs}) == 1
    rows = [
        [
            cost.spec.name,
            "x".join(map(str, cost.spec.shape)) or "scalar",
            f"{cost.bytes:,}",
            f"{8 * cost.bytes / max(cost.spec.size, 1):.3f}",
            f"{cost.kept:,}",
            _nmse([cost]),
            "" if plain else cost.spec.dtype,
            "" if shared else cost.codec,
        ]
        for cost in costs
    ]
    size = sum(cost.spec.size for cost in costs)
    rows.append(
        [
            "all, with headers",
            "",
            f"{total:,}",
            f"{8 * total / max(size, 1):.3f}",
            f"{sum(cost.kept for cost in costs):,}",
            _nmse(costs),
            "",
            "",
        ]
    )
    raw = sum(cost.spec.nbytes for cost in costs)
    notes = [f"Codec: {costs[0].codec}."] if shared else []
    notes.append(
        f"{size:,} values of {raw:,} bytes: {raw / max(total, 1):.1f}x smaller. Bits: per value."
    )
    used = [at for at in range(len(columns)) if at < 2 or any(row[at] for row in rows)]
    return [
        FittedTable(
            [columns[at] for at in used],
            [[row[at] for at in used] for row in rows],
            last_apart=True,
            nothing="",
        ),
        Text(" ".join(notes), style="dim"),
    ]


def _nmse(costs: Sequence[Cost]) -> str:
    known = [cost for cost in costs if cost.error is not None and cost.energy is not None]
    if not known:
        return ""
    error = sum(cost.error or 0.0 for cost in known)
    energy = sum(cost.energy or 0.0 for cost in known)
    return f"{error / energy:.3g}" if energy else "0"
