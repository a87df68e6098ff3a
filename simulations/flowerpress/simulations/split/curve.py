"""Points of accuracy against bytes: in a file as they come, and as curves over seeds."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path

from flowerpress.compression import ConfigError

__all__ = ["Mean", "Point", "add_point", "bytes_at", "means", "read_points"]


@dataclass(frozen=True)
class Point:
    """One setting of one method, judged on the test examples.

    ``bytes_each``: of an example where ``batch`` of them share a stream (of picture files: without
    what all have in common). ``bytes_alone``: of an example that is sent by itself.
    """

    seed: int
    method: str
    setting: str
    accuracy: float
    bytes_each: float
    bytes_alone: float
    batch: int
    samples: int

    @property
    def key(self) -> tuple[str, str]:
        """What is measured once for each seed."""
        return self.method, self.setting


@dataclass(frozen=True)
class Mean:
    """A setting's points over ``seeds`` seeds: means, and the lowest and highest accuracy."""

    method: str
    setting: str
    seeds: int
    accuracy: float
    low: float
    high: float
    bytes_each: float
    bytes_alone: float


def add_point(path: Path, point: Point) -> None:
    """Append a row; the first brings the names of the columns.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        new = not path.exists() or path.stat().st_size == 0
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, [field.name for field in fields(Point)])
            if new:
                writer.writeheader()
            writer.writerow(asdict(point))
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error


def read_points(path: Path) -> list[Point]:
    """Return the rows of a file, none where there is no file; a row cut off at its end is left out.

    Raises:
        ConfigError: the file is not such a table.
    """
    try:
        text = path.read_text()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        # The command was stopped in the middle of a row, and so it was not judged: begin it anew.
        lines.pop()
        path.write_text("".join(lines))
    points = []
    for number, row in enumerate(csv.DictReader(lines), start=2):
        try:
            points.append(
                Point(
                    int(row["seed"]),
                    row["method"],
                    row["setting"],
                    float(row["accuracy"]),
                    float(row["bytes_each"]),
                    float(row["bytes_alone"]),
                    int(row["batch"]),
                    int(row["samples"]),
                )
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"{path}, line {number}: is no row of points: {error}") from error
    return points


def means(points: Iterable[Point]) -> list[Mean]:
    """Return the mean of each setting over its seeds, in the order in which they were first met."""
    groups: dict[tuple[str, str], list[Point]] = {}
    for point in points:
        groups.setdefault(point.key, []).append(point)
    return [
        Mean(
            method,
            setting,
            len(group),
            _mean([p.accuracy for p in group]),
            min(p.accuracy for p in group),
            max(p.accuracy for p in group),
            _mean([p.bytes_each for p in group]),
            _mean([p.bytes_alone for p in group]),
        )
        for (method, setting), group in groups.items()
    ]


def bytes_at(accuracy: float, curve: Sequence[tuple[float, float]]) -> float | None:
    """Return the fewest bytes with which a curve reaches ``accuracy``; None where it never does.

    Args:
        accuracy: to be reached.
        curve: (bytes, accuracy) of each point, bytes above 0.

    Between points that no other beats in both, accuracy is taken as linear in the logarithm of
    the bytes.
    """
    front: list[tuple[float, float]] = []
    for size, reached in sorted(curve, key=lambda point: (point[0], -point[1])):
        if not front or reached > front[-1][1]:
            front.append((size, reached))
    if not front or accuracy > front[-1][1]:
        return None
    if accuracy <= front[0][1]:
        return front[0][0]
    for (x0, y0), (x1, y1) in pairwise(front):
        if accuracy <= y1:
            share = (accuracy - y0) / (y1 - y0)
            return math.exp(math.log(x0) + share * math.log(x1 / x0))
    return None


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
