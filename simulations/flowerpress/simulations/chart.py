"""The pictures of a comparison: accuracy against bytes or simulated time, a line for each codec.

The line is the mean over the seeds, the band goes from the lowest to the highest seed. The end of
each line carries the codec's name, moved to where it covers neither lines nor other names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

from flowerpress.simulations.canvas import (
    COLOURS,
    PAPER,
    axes,
    bytes_axis,
    limits,
    new_figure,
    percent_axis,
    seconds_axis,
    shorten,
    spread_apart,
)
from flowerpress.simulations.human import duration, human_bytes, percent
from flowerpress.simulations.metrics import RoundRecord
from flowerpress.simulations.record import Run

__all__ = ["BYTES", "TIME", "Curve", "Measure", "comparison_figure", "curves"]

_DASHES: tuple[str | tuple[int, tuple[float, ...]], ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)))
_MARKS = "osD^vP"


@dataclass(frozen=True)
class Measure:
    """What stands on the x axis: what a round adds to it, and how it is written.

    ``of`` returns None where a round did not measure it.
    """

    title: str
    label: str
    of: Callable[[RoundRecord], float | None]
    text: Callable[[float | None], str]
    ticks: Callable[[Axis, float, float], None]


BYTES = Measure(
    "Accuracy against total bytes",
    "bytes sent so far, up and down, all clients",
    lambda record: record.bytes_total,
    human_bytes,
    bytes_axis,
)
TIME = Measure(
    "Accuracy against simulated time",
    "time so far on simulated links",
    lambda record: record.simulated_seconds,
    duration,
    seconds_axis,
)


@dataclass(frozen=True)
class Curve:
    """One codec: float64 arrays of equal length; ``x`` is the measure's mean over seeds."""

    label: str
    seeds: int
    x: NDArray[np.float64]
    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def curves(runs: Sequence[Run], measure: Measure = BYTES) -> list[Curve]:
    """Return a curve for each label, of the rounds that all of its seeds evaluated.

    Seeds without any evaluation are left out; so are rounds before the first byte or second, which
    have no place on a logarithmic axis.
    """
    groups: dict[str, list[dict[int, tuple[float, float]]]] = {}
    for run in runs:
        so_far, points = 0.0, {}
        for record in run.records:
            so_far += measure.of(record) or 0.0
            if record.accuracy is not None and so_far:
                points[record.round] = (so_far, record.accuracy)
        group = groups.setdefault(run.label, [])
        if points:
            group.append(points)
    found = []
    for label, seeds in groups.items():
        rounds = sorted(set.intersection(*(set(points) for points in seeds))) if seeds else []
        if rounds:
            table = np.array([[points[at] for at in rounds] for points in seeds], np.float64)
            mean, accuracy = table[..., 0].mean(0), table[..., 1]
            low, high = accuracy.min(0), accuracy.max(0)
            found.append(Curve(label, len(seeds), mean, accuracy.mean(0), low, high))
    return found


def comparison_figure(
    runs: Sequence[Run], title: str = "", note: str = "", measure: Measure = BYTES
) -> Figure | None:
    """Draw ``curves(runs, measure)``; None where no run evaluated or measured anything."""
    drawn = curves(runs, measure)
    if not drawn:
        return None
    figure = new_figure(780)
    ax = axes(figure, title or measure.title, measure.label, "accuracy", note)
    ax.set_xscale("log")
    for index, curve in enumerate(drawn):
        colour, turn = COLOURS[index % len(COLOURS)], index // len(COLOURS)
        style = _DASHES[turn % len(_DASHES)]
        if curve.seeds > 1:
            ax.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.16, linewidth=0)
        ax.plot(curve.x, curve.mean, color=colour, linestyle=style, zorder=3)
        ax.plot(
            curve.x[-1:],
            curve.mean[-1:],
            color=colour,
            marker=_MARKS[index % len(_MARKS)],
            markersize=8,
            markeredgecolor=PAPER,
            markeredgewidth=1.2,
            zorder=4,
        )
    low, high = limits([size for curve in drawn for size in curve.x.tolist()], 0.05)
    high *= (high / low) ** 0.12  # room for the name of the rightmost line
    ax.set_xlim(low, high)
    bottom = min(float(curve.low.min()) for curve in drawn)
    top = max(float(curve.high.max()) for curve in drawn)
    room = max(top - bottom, 0.02)
    ax.set_ylim(bottom - 0.04 * room, top + 0.14 * room)
    measure.ticks(ax.xaxis, low, high)
    percent_axis(ax.yaxis)
    _label_ends(figure, ax, drawn, measure)
    return figure


_Across = Literal["left", "center", "right"]
_Along = Literal["bottom", "center", "top"]
_PLACES: tuple[tuple[float, float, _Across, _Along], ...] = (
    (10, 0, "left", "center"),
    (0, 10, "center", "bottom"),
    (0, -10, "center", "top"),
    (8, 8, "left", "bottom"),
    (8, -8, "left", "top"),
    (-8, 9, "right", "bottom"),
    (-8, -9, "right", "top"),
)
"""Where a name may stand from its point: offset in points and alignment, the best first."""


def _label_ends(figure: Figure, ax: Axes, drawn: Sequence[Curve], measure: Measure) -> None:
    """Put each name at the place that covers the least; the best line chooses first.

    Where a name would still cover another or the end of a line, all of them go into a column at
    the right.
    """
    canvas: Any = figure.canvas
    canvas.draw()  # the layout must be known before pixels mean anything
    renderer = canvas.get_renderer()
    frame = ax.get_window_extent(renderer)
    lines = [_dense(ax.transData.transform(np.column_stack((c.x, c.mean)))) for c in drawn]
    points = np.concatenate(lines)
    taken = [Bbox.from_bounds(x - 9, y - 9, 18, 18) for x, y in (line[-1] for line in lines)]
    order = sorted(range(len(drawn)), key=lambda at: float(-drawn[at].mean[-1]))
    placed: list[Annotation] = []
    for at in order:
        curve, colour = drawn[at], COLOURS[at % len(COLOURS)]
        text = ax.annotate(
            f"{shorten(curve.label, 28)}\n{percent(float(curve.mean[-1]))}, "
            f"{measure.text(float(curve.x[-1]))}",
            (float(curve.x[-1]), float(curve.mean[-1])),
            (0, 0),
            textcoords="offset points",
            color=colour,
            fontsize=9,
            fontweight="bold",
            linespacing=1.25,
            zorder=6,
            path_effects=[withStroke(linewidth=3, foreground=PAPER)],
        )
        best: tuple[float, int] | None = None
        for place in range(len(_PLACES)):
            _move(text, place)
            box = text.get_window_extent(renderer).padded(2)
            cost = 0.4 * place + _cost(box, frame, points, taken)
            if best is None or cost < best[0]:
                best = (cost, place)
        assert best is not None
        _move(text, best[1])
        placed.append(text)
        taken.append(text.get_window_extent(renderer).padded(2))
    clashes = (taken[at].overlaps(b) for at in range(len(drawn), len(taken)) for b in taken[:at])
    if any(clashes):
        for text in placed:
            text.remove()
        _label_column(ax, drawn, frame, measure)


def _label_column(ax: Axes, drawn: Sequence[Curve], frame: Bbox, measure: Measure) -> None:
    """List the names right of the frame in the order of their lines' ends, joined by thin lines."""
    order = sorted(range(len(drawn)), key=lambda at: float(drawn[at].mean[-1]))
    ends = ax.transData.transform([(drawn[at].x[-1], drawn[at].mean[-1]) for at in order])
    pixels = spread_apart(ends[:, 1].tolist(), 26, frame.y0, frame.y1)
    for at, pixel in zip(order, pixels, strict=True):
        curve, colour = drawn[at], COLOURS[at % len(COLOURS)]
        ax.annotate(
            f"{shorten(curve.label, 22)} {percent(float(curve.mean[-1]))}, "
            f"{measure.text(float(curve.x[-1]))}",
            (float(curve.x[-1]), float(curve.mean[-1])),
            (1.02, (pixel - frame.y0) / frame.height),
            textcoords="axes fraction",
            va="center",
            color=colour,
            fontsize=8.5,
            fontweight="bold",
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "alpha": 0.6,
                "linewidth": 0.8,
                "relpos": (0, 0.5),
                "shrinkA": 2,
                "shrinkB": 5,
            },
        )


def _move(text: Annotation, place: int) -> None:
    x, y, across, along = _PLACES[place]
    text.set_position((x, y))
    text.set_horizontalalignment(across)
    text.set_verticalalignment(along)


def _cost(box: Bbox, frame: Bbox, points: NDArray[np.float64], taken: Sequence[Bbox]) -> float:
    """Price of a place: much for other names and for leaving the frame, some for lines covered."""
    outside: float = max(0.0, box.x1 - frame.x1) + max(0.0, frame.x0 - box.x0)
    outside += max(0.0, box.y1 - frame.y1 - 20) + max(0.0, frame.y0 - box.y0)
    inside = (points > [box.x0, box.y0]) & (points < [box.x1, box.y1])
    covered = int(inside.all(axis=1).sum())
    names = sum(bool(box.overlaps(other)) for other in taken)
    return float(5.0 * outside + 1.5 * covered + 60.0 * names)


def _dense(corners: NDArray[np.float64], step: float = 4.0) -> NDArray[np.float64]:
    """Return points at most ``step`` pixels apart along a line through ``corners`` (N, 2)."""
    pieces = [corners[:1]]
    for start, end in pairwise(corners):
        count = max(1, int(np.ceil(np.hypot(*(end - start)) / step)))
        pieces.append(start + (end - start) * np.linspace(0, 1, count + 1)[1:, None])
    return np.concatenate(pieces)
