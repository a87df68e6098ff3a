"""What every budget would give: bytes against error, for each allocator."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.errors import ConfigError
from flowerpress.compression.rates.budget import least_bytes
from flowerpress.compression.rates.points import Points
from flowerpress.compression.rates.solve import ALLOCATORS, allocate
from flowerpress.simulations.tuning.profile import Profile

__all__ = ["QUICK", "FrontPoint", "front", "read_csv", "targets", "write_csv"]

QUICK = tuple(name for name in ALLOCATORS if name != "dp")
"""The allocators that take milliseconds."""

_SPAN = 200.0
_MOST_ROWS = 100_000


@dataclass(frozen=True)
class FrontPoint:
    """One allocator with one budget. ``bytes``: of the message that it expects.

    ``target_bytes`` is what it was allowed. ``nmse``: squared error by energy, all tensors
    together; ``weighted``: the same with the weights of the sensitivity.
    """

    allocator: str
    target_bytes: float
    bytes: float
    nmse: float
    weighted: float


def targets(profile: Profile, count: int = 24) -> list[float]:
    """Return budgets of bytes for whole messages from the least to all there is, by equal ratios.

    The least is what the cheapest settings take, and no less than a two-hundredth of the most.
    """
    beside = least_bytes(profile.manifest)
    sizes = profile.points.bytes
    usable = np.isfinite(sizes).any(axis=1)
    most = float(np.where(np.isfinite(sizes), sizes, 0.0).max(axis=1).sum())
    least = float(np.where(np.isfinite(sizes), sizes, np.inf)[usable].min(axis=1).sum())
    low = max(least, most / _SPAN) + 1.0
    if low >= most:
        return [beside + max(least, most, 1.0)]
    return [float(size) for size in np.geomspace(beside + low, beside + most, count)]


def front(
    profile: Profile,
    *,
    sensitivity: str = "none",
    allocators: Sequence[str] = QUICK,
    count: int = 24,
    tell: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> list[FrontPoint]:
    """Return what each allocator makes of each budget; a budget that it cannot meet is left out.

    Raises:
        ConfigError: a sensitivity that was not measured.
    """
    weights = profile.weights(sensitivity)
    points = profile.points
    beside = least_bytes(profile.manifest)
    budgets = targets(profile, count)
    found: list[FrontPoint] = []
    for allocator in allocators:
        for at, target in enumerate(budgets):
            tell(allocator, at, len(budgets))
            try:
                choice = allocate(
                    points, allocator, target_bytes=int(target - beside), weights=weights
                )
            except ConfigError:
                continue
            size, nmse = points.chosen(choice)
            found.append(
                FrontPoint(
                    allocator, target, beside + size, nmse, weighted_nmse(points, choice, weights)
                )
            )
        tell(allocator, len(budgets), len(budgets))
    return found


def weighted_nmse(points: Points, choice: NDArray[np.int64], weights: NDArray[np.float64]) -> float:
    """Return the weighted squared error of a choice by the weighted energy; 0 without energy."""
    rows = np.arange(len(points.names))
    energy = float(np.dot(weights, points.energies))
    lost = float(np.dot(weights, points.errors[rows, choice]))
    return lost / energy if energy else 0.0


def write_csv(path: Path, points: Sequence[FrontPoint]) -> Path:
    """Write the front as CSV, plain numbers.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, [field.name for field in fields(FrontPoint)])
            writer.writeheader()
            writer.writerows(asdict(point) for point in points)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror or error}") from error
    return path


def read_csv(path: Path) -> list[FrontPoint]:
    """Read what ``write_csv`` wrote.

    Raises:
        ConfigError: it cannot be read, or holds something else.
    """
    names = [field.name for field in fields(FrontPoint)]
    found: list[FrontPoint] = []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            if reader.fieldnames != names:
                raise ConfigError(f"{path}: its columns are not {', '.join(names)}")
            for row in reader:
                values = [float(row[name]) for name in names[1:]]
                if not np.isfinite(values).all() or len(found) >= _MOST_ROWS:
                    raise ConfigError(f"{path}: row {len(found) + 1} is not one of a front")
                found.append(FrontPoint(row["allocator"], *values))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, TypeError, csv.Error) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path}: row {len(found) + 1} is not one of a front") from error
    return found
