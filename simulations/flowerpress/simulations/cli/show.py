"""What ``compare`` and ``report`` print of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flowerpress.simulations.record import Run

__all__ = ["show_comparison"]


def show_comparison(runs: Sequence[Run], page: Path) -> None:
    """Print the setting, the table, what its columns mean, and where the pages are."""
    from rich.console import Console
    from rich.text import Text

    from flowerpress.simulations.comparison.tables import (
        comparison_key,
        comparison_setting,
        comparison_table,
        summarise,
    )
    from flowerpress.simulations.fitted import visible

    console = Console()
    rows = summarise(runs)
    console.print()
    console.print(Text(visible(comparison_setting(runs)), style="bold"))
    console.print(comparison_table(rows))
    console.print(Text(visible(comparison_key(rows)), style="dim"))
    picture = page.with_name("comparison.png")
    if picture.is_file():
        console.print(f"Picture: {picture}", soft_wrap=True, markup=False, highlight=False)
    console.print(f"Report:  {page}", soft_wrap=True, markup=False, highlight=False)
