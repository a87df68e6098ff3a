"""What a defence did to each client over a run, as a table of a report."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from flowerpress.simulations import page
from flowerpress.simulations.human import percent
from flowerpress.simulations.metrics import RoundRecord
from flowerpress.simulations.treated import Treated

__all__ = ["treated_table"]


def treated_table(records: Sequence[RoundRecord]) -> str:
    """Return a table of what became of each client's updates over a run; "" without a defence."""
    by_client: dict[int, list[Treated]] = {}
    for record in records:
        for treated in record.treated:
            by_client.setdefault(treated.client, []).append(treated)
    columns = ("Client", "Updates", "Clipped", "Median factor", "Rejected", "Capped", "Values kept")
    rows = [
        (
            str(client),
            str(len(each)),
            str(sum(0 < t.factor < 1 for t in each)),
            f"{statistics.median(t.factor for t in each):.2f}",
            str(sum(t.factor == 0 for t in each)),
            str(sum(0 < t.counted < t.claimed for t in each)),
            percent(statistics.fmean(t.share for t in each)),
        )
        for client, each in sorted(by_client.items())
    ]
    return page.table(columns, rows) if rows else ""
