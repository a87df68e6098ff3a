"""Where a task's files are: a folder that the user names, or FLOWERPRESS_DATA."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flowerpress.compression.errors import ConfigError

__all__ = ["VARIABLE", "Source", "find_files"]

VARIABLE = "FLOWERPRESS_DATA"
"""Environment variable that names the folder with one subfolder per task."""


@dataclass(frozen=True)
class Source:
    """A data set on disk. ``task``: also its subfolder. ``title`` and ``home``: what to download
    and where it is offered. ``layouts``: the sets of files that hold it, the first complete one
    is used; a file is a tuple of the names it may have. ``nested``: a folder that its download
    unpacks into.
    """

    task: str
    title: str
    home: str
    layouts: tuple[tuple[tuple[str, ...], ...], ...]
    nested: str | None = None


def find_files(source: Source, folder: Path | None) -> list[Path]:
    """Return the paths of the first complete layout, in its order.

    Looked for in ``folder`` (or, if it is None, in the folder that FLOWERPRESS_DATA names): first
    the folder itself, then its subfolder of the task's name. Raises ConfigError that says what to
    download and where to put it if a file is missing.
    """
    named = str(folder) if folder is not None else os.environ.get(VARIABLE, "")
    if not named:
        raise ConfigError(f"task {source.task}: no data folder is named. {_advice(source, None)}")
    root = Path(named).expanduser()
    if not root.is_dir():
        raise ConfigError(
            f"task {source.task}: the data folder {root} does not exist. {_advice(source, root)}"
        )
    places = [root, root / source.task]
    if source.nested is not None:
        places += [place / source.nested for place in tuple(places)]
    lacking: dict[str, int] = {}
    for place in places:
        for layout in source.layouts:
            found = [_first(place, names) for names in layout]
            complete = [path for path in found if path is not None]
            if len(complete) == len(layout):
                return complete
            if complete:  # A part of the data is there: name what is not.
                gaps = [names[0] for names, path in zip(layout, found, strict=True) if path is None]
                lacking[f"{place} lacks {', '.join(gaps)}"] = len(complete)
    if lacking:
        problem = max(lacking, key=lambda text: lacking[text])
    else:
        problem = f"neither {root} nor {root / source.task} holds its files"
    raise ConfigError(f"task {source.task}: {problem}. {_advice(source, root)}")


def _first(place: Path, names: Sequence[str]) -> Path | None:
    return next((place / name for name in names if (place / name).is_file()), None)


def _advice(source: Source, root: Path | None) -> str:
    lists = ["; or ".join(", ".join(names[0] for names in files) for files in source.layouts)]
    root_name = str(root) if root is not None else "DATA"
    naming = (
        ""
        if root is not None
        else f" Then name DATA with the option for the data folder, or with {VARIABLE}=DATA."
    )
    return (
        f"Download {source.title} ({source.home}) and put its files ({lists[0]}) "
        f"into {root_name}/{source.task}/.{naming}"
    )
