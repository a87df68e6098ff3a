"""Progress over the tensors of a model, on the terminal while there is one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flowerpress.compression import Manifest

__all__ = ["progress"]


@contextmanager
def progress(what: str, manifest: Manifest) -> Iterator[Callable[[str], None]]:
    """Show a bar on standard error; the function that this yields takes the names of what is done.

    The bar counts bytes, so that it moves evenly. It leaves nothing behind.
    """
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    from flowerpress.simulations.fitted import visible

    sizes = {spec.name: spec.nbytes for spec in manifest.specs}
    console = Console(stderr=True)
    bar = Progress(
        TextColumn(what),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[name]}", markup=False),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task(what, total=manifest.nbytes, name="")

        def told(name: str) -> None:
            bar.update(task, advance=sizes[name], name=visible(name))

        yield told
