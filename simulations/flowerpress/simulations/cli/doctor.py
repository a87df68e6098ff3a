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
    """Check versions, compiled kernels, caches, data folders and engines; say what to do.

    Ends with status 1 where something must be put right. Example: flowerpress doctor --quick
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from flowerpress.simulations.fitted import visible
    from flowerpress.simulations.health import Status, checks

    console = Console()
    table = Table(show_header=False, box=None, pad_edge=False)
    for _ in range(2):
        table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    colours = {Status.OK: "green", Status.NOTE: "yellow", Status.FAILED: "red"}
    failed = False
    for check in checks(quick=quick):
        failed |= check.status is Status.FAILED
        # Text, not markup: advice such as flowerpress[simulation] must come out whole.
        mark = Text(check.status.value, style=colours[check.status])
        table.add_row(mark, Text(check.subject), Text(visible(check.finding)))
    console.print(table)
    if failed:
        sys.exit(1)
