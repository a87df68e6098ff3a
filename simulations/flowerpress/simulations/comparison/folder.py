"""The folder of a comparison: which runs it has, in which order, and by which names."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from flowerpress.compression.errors import ConfigError
from flowerpress.simulations.comparison.plan import Planned
from flowerpress.simulations.record import ROUNDS, Run, read_run

__all__ = ["runs_in", "write_order"]

ORDER = "comparison.json"
"""Names the runs of a comparison, the reference first: a folder's listing has no such order."""


def write_order(folder: Path, planned: Sequence[Planned]) -> None:
    """Note which runs are planned, the reference first.

    Raises:
        ConfigError: the folder cannot be written to.
    """
    runs = [[run.folder.relative_to(folder).as_posix(), run.label] for run in planned]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ORDER).write_text(json.dumps({"format": 1, "runs": runs}, indent=1) + "\n")
    except OSError as error:
        raise ConfigError(f"{folder}: cannot write a comparison there: {error}") from error


def runs_in(folder: Path) -> list[Run]:
    """Return the runs of a comparison's folder, in the order and by the names it was made with.

    Raises:
        ConfigError: there are none.
    """
    runs: list[Run] = []
    listed = set()
    for name, label in _read_order(folder):
        listed.add(folder / name)
        if (folder / name / ROUNDS).is_file():
            runs.append(read_run(folder / name, label))
    # Runs that were put there by other means follow.
    for path in sorted(folder.glob(f"*/seed-*/{ROUNDS}")):
        if path.parent not in listed:
            runs.append(read_run(path.parent))
    if not runs:
        raise ConfigError(f"{folder}: holds neither a run nor a comparison of runs")
    return runs


def _read_order(folder: Path) -> list[tuple[str, str]]:
    """Return (folder, label) of every planned run; nothing where there is no such file."""
    path = folder / ORDER
    if not path.is_file():
        return []
    try:
        runs = json.loads(path.read_bytes())["runs"]
        pairs = [(str(name), str(label)) for name, label in runs]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); remove it and try again") from error
    if any(Path(name).is_absolute() or ".." in Path(name).parts for name, _ in pairs):
        raise ConfigError(f"{path}: names a folder outside the comparison")
    return pairs
