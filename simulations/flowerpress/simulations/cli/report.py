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
    """Write report.html and its pictures again, also for a run that was stopped or goes on.

    Example: flowerpress report runs/digits-stc-seed0
    """
    from rich.console import Console

    from flowerpress.simulations.audit import audit_table
    from flowerpress.simulations.cli.show import show_comparison
    from flowerpress.simulations.comparison.folder import runs_in
    from flowerpress.simulations.comparison.report import write_comparison
    from flowerpress.simulations.record import ROUNDS, read_run
    from flowerpress.simulations.report import write_report
    from flowerpress.simulations.tables import run_table

    if (folder / ROUNDS).is_file():
        page = write_report(folder)
        console = Console()
        run = read_run(folder)
        console.print(run_table(run, last=5))
        audited = audit_table(run.records)
        if audited is not None:
            console.print(audited)
        for note in run.notes:
            console.print(note, soft_wrap=True, markup=False, highlight=False)
        console.print(f"Report: {page}", soft_wrap=True, markup=False, highlight=False)
    else:
        runs = runs_in(folder)
        show_comparison(runs, write_comparison(folder, runs))
