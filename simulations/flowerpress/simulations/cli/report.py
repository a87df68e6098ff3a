"""``flowerpress report``: the pages and pictures of runs that were made earlier."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["report"]


def report(
    folder: Annotated[
        Path, typer.Argument(help="A run's folder, or one that a comparison was written to.")
    ],
) -> None:
    """Write report.html and its pictures again, also for a run that was stopped or goes on."""
    from rich.console import Console

    from flowerpress.simulations.comparison import runs_in
    from flowerpress.simulations.record import ROUNDS, read_run
    from flowerpress.simulations.report import write_comparison, write_report
    from flowerpress.simulations.tables import comparison_table, run_table, summarise

    console = Console()
    if (folder / ROUNDS).is_file():
        page = write_report(folder)
        console.print(run_table(read_run(folder), last=5))
    else:
        runs = runs_in(folder)
        page = write_comparison(folder, runs)
        console.print(comparison_table(summarise(runs)))
    console.print(f"Report: {page}", soft_wrap=True)
