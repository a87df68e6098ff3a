"""Updates on disk: which files of a folder are one, and what error a decoded one has."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "FEWEST",
    "PREVIOUS",
    "Arrays",
    "Point",
    "Update",
    "large_only",
    "nmse",
    "read_points",
    "read_updates",
    "size_of",
]

Arrays = Mapping[str, NDArray[Any]]

FEWEST = 256
"""Where codecs are compared with NNCodec, smaller tensors are left out on both sides."""

PREVIOUS = "_previous_global"
"""Ends the name of the file with the averaged update of the round before."""


@dataclass(frozen=True)
class Update:
    """``arrays``: what one client changed. ``references``: the averaged change of the round
    before, which server and client both know; empty where there is none.
    """

    name: str
    arrays: Arrays
    references: Arrays


@dataclass(frozen=True)
class Point:
    """Bits per parameter at an NMSE. ``label``: the codec's name and settings; ``qp``: NNCodec's
    step, where it is one of its points.
    """

    label: str
    bits_per_param: float
    nmse: float
    qp: int | None = None


def read_updates(folder: Path, previous: bool = True) -> Iterator[Update]:
    """Yield the updates of a folder in the order of their names; raise SystemExit at none.

    With ``previous``, ``mnist_round4_client0.npz`` has as its reference the tensors of
    ``mnist_round4_client0_previous_global.npz`` or, where that is not there, those of
    ``mnist_round4_previous_global.npz``, which its clients share.
    """
    files = [file for file in sorted(folder.glob("*.npz")) if not file.stem.endswith(PREVIOUS)]
    if not files:
        raise SystemExit(f"{folder}: holds no .npz file with the tensors of an update")
    for file in files:
        stems = (file.stem, file.stem.rpartition("_client")[0] or file.stem)
        before = [folder / f"{stem}{PREVIOUS}.npz" for stem in stems]
        found = next((each for each in before if previous and each.is_file()), None)
        yield Update(file.stem, _arrays(file), {} if found is None else _arrays(found))


def read_points(file: Path) -> dict[str, dict[str, list[Point]]]:
    """Return update -> label -> points, ascending in NMSE.

    Columns ``file``, ``bits_per_param`` and ``nmse`` must be there; ``lambda`` tells curves apart.
    """
    curves: dict[str, dict[str, list[Point]]] = {}
    with file.open(newline="") as stream:
        reader = csv.DictReader(stream)
        missing = {"file", "bits_per_param", "nmse"} - set(reader.fieldnames or ())
        if missing:
            raise SystemExit(f"{file}: has no column {', '.join(sorted(missing))}")
        for row in reader:
            label = "NNCodec"
            if row.get("lambda"):
                label += f" lambda={float(row['lambda']):g}"
            qp = int(row["qp"]) if row.get("qp") else None
            point = Point(label, float(row["bits_per_param"]), float(row["nmse"]), qp)
            curves.setdefault(row["file"], {}).setdefault(label, []).append(point)
    for labels in curves.values():
        for curve in labels.values():
            curve.sort(key=lambda point: point.nmse)
    return curves


def large_only(update: Update) -> Update:
    """Return ``update`` without its tensors of fewer than ``FEWEST`` elements."""
    kept = {name: each for name, each in update.arrays.items() if each.size >= FEWEST}
    return replace(update, arrays=kept)


def size_of(arrays: Arrays) -> int:
    """Return the number of parameters."""
    return sum(array.size for array in arrays.values())


def nmse(arrays: Arrays, decoded: Arrays) -> float:
    """Return the squared error over the squared norm, over all tensors of ``arrays``."""
    lost = sum(float(((decoded[n] - x).astype(np.float64) ** 2).sum()) for n, x in arrays.items())
    power = sum(float((x.astype(np.float64) ** 2).sum()) for x in arrays.values())
    return lost / power


def _arrays(file: Path) -> dict[str, NDArray[Any]]:
    with np.load(file, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}
