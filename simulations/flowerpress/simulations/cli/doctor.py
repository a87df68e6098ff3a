"""``flowerpress doctor``: whether this machine has what a run needs, and what to do if not."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

__all__ = ["doctor"]


def doctor(
    quick: Annotated[
        bool, typer.Option("--quick", help="Leave out the checks that compile and train.")
    ] = False,
) -> None:
    """Check versions, compiled kernels, caches, data folders and engines; say what to do."""
    from rich.console import Console
    from rich.table import Table

    from flowerpress.simulations.health import Status, checks

    console = Console()
    table = Table(show_header=False, box=None, pad_edge=False)
    colours = {Status.OK: "green", Status.NOTE: "yellow", Status.FAILED: "red"}
    failed = False
    for check in checks(quick=quick):
        failed |= check.status is Status.FAILED
        mark = f"[{colours[check.status]}]{check.status.value}[/]"
        table.add_row(mark, check.subject, check.finding)
    console.print(table)
    if failed:
        sys.exit(1)
