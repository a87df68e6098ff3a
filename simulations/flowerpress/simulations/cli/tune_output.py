"""What the commands of ``flowerpress tune`` share: progress, tables, and where things go."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.progress import TaskID

    from flowerpress.simulations.tuning.folder import TuningFolder

__all__ = [
    "command_line",
    "folder_of",
    "make_folder",
    "refuse_existing",
    "show",
    "stages",
    "write",
]


def command_line() -> str:
    """Return the command that runs, as one would type it."""
    import shlex
    import sys

    return shlex.join(["flowerpress", *sys.argv[1:]])


def refuse_existing(path: Path, force: bool) -> None:
    """Refuse before any work is done what could not be written, or should not be replaced.

    Raises:
        ConfigError: as it says.
    """
    from flowerpress.compression.errors import ConfigError

    if path.is_dir():
        raise ConfigError(f"{path}: is a folder; name a file with -o")
    if path.exists() and not force:
        raise ConfigError(
            f"{path}: is there already; choose another with -o, or replace it: --force"
        )
    make_folder(path.parent)


def make_folder(folder: Path) -> None:
    """Make a folder, unless it is there.

    Raises:
        ConfigError: it cannot be made.
    """
    from flowerpress.compression.errors import ConfigError

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot write to {folder}: {error.strerror or error}") from error


def write(path: Path, text: str) -> None:
    """Write a file, whole or not at all."""
    from flowerpress.simulations.tuning.folder import write_text

    write_text(path, text)


def folder_of(path: Path) -> TuningFolder:
    """Return what is known of the tuning in a folder."""
    from flowerpress.simulations.tuning.folder import TuningFolder

    return TuningFolder.read(path)


def show(
    folder: TuningFolder, table: RenderableType, note: str, warnings: tuple[str, ...], where: str
) -> None:
    """Write index, pictures and report of a folder; print a table and where things are."""
    from rich.console import Console
    from rich.text import Text

    from flowerpress.simulations.fitted import visible
    from flowerpress.simulations.tuning.report import write_report

    folder.save()
    page = write_report(folder)
    console = Console()
    console.print(table)
    console.print(Text(visible(note), style="dim"))
    for each in warnings:
        console.print(Text(visible(f"Note: {each}."), style="yellow"))
    console.print(visible(where), soft_wrap=True, markup=False, highlight=False)
    console.print(f"Report:  {page}", soft_wrap=True, markup=False, highlight=False)


@contextmanager
def stages() -> Iterator[Callable[[str, int, int], None]]:
    """Show a bar for each stage on standard error; where there is no terminal, a line for each."""
    import sys

    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    console = Console(stderr=True)
    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    known: dict[str, TaskID] = {}

    def tell(stage: str, done: int, total: int) -> None:
        if stage not in known:
            known[stage] = bars.add_task(stage, total=total)
            if not console.is_terminal:
                print(f"{stage}: {total} step{'s' * (total != 1)}", file=sys.stderr)
        bars.update(known[stage], completed=done, total=total)

    with bars:
        yield tell
