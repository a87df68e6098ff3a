"""The table of a verification: accuracy and loss after a short training, at equal bytes."""

from __future__ import annotations

from collections.abc import Sequence

from flowerpress.simulations.comparison.tables import summarise
from flowerpress.simulations.fitted import Column, FittedTable
from flowerpress.simulations.human import NOTHING, human_bytes, human_ratio, percent
from flowerpress.simulations.record import Run

__all__ = ["VERIFY_COLUMNS", "verify_cells", "verify_note", "verify_table"]

VERIFY_COLUMNS = (
    Column("uplink", text=True),
    Column("accuracy"),
    Column("loss"),
    Column("behind", drop=3),
    Column("bytes a message", drop=4),
    Column("ratio up", drop=2),
    Column("left out", drop=1),
    Column("seconds", drop=0),
)


def verify_cells(runs: Sequence[Run]) -> list[list[str]]:
    """Return a row for each way to code the uplink, with the cells of ``VERIFY_COLUMNS``.

    ``loss``: on the test set after the last evaluated round, mean over seeds. After a few rounds it
    tells more than accuracy does, which jumps while a model is still finding its classes.
    """
    rows = []
    for row in summarise(runs):
        own = [run.evaluated[-1].loss for run in runs if run.label == row.codec and run.evaluated]
        losses = [loss for loss in own if loss is not None]
        accuracy = percent(row.accuracy, 2)
        if row.seeds > 1 and row.accuracy_spread is not None:
            accuracy = f"{accuracy} ± {100 * row.accuracy_spread:.2f}"
        rows.append(
            [
                row.codec,
                accuracy,
                f"{sum(losses) / len(losses):.3f}" if losses else NOTHING,
                NOTHING if row.behind is None else f"{row.behind + 0.0:.2f}",
                human_bytes(row.up_per_client_round),
                human_ratio(row.ratio_up),
                str(row.left_out) if row.left_out else NOTHING,
                f"{row.seconds:.1f}",
            ]
        )
    return rows


def verify_table(runs: Sequence[Run]) -> FittedTable:
    """Return a verification for the terminal; ``verify_note`` explains its columns."""
    return FittedTable(VERIFY_COLUMNS, verify_cells(runs))


def verify_note(budget: int, rounds: int, seeds: int) -> str:
    """Return what was compared: bytes of a message, rounds and seeds."""
    return (
        f"At most {budget:,} bytes a message; {_many(rounds, 'round')}, {_many(seeds, 'seed')}; "
        "downlink none in all runs. Accuracy and loss: of the last round on the test set"
        f"{', mean' * (seeds > 1)}. Behind: percentage points of accuracy behind none"
    )


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"
