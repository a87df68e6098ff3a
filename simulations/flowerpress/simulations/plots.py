"""The pictures of one run: accuracy by bytes and by round, bytes by tensor, recall by class.

Each ``*_figure`` returns a matplotlib figure, or None where the run measured nothing of the kind.
Call them, and save what they return, inside ``canvas.drawing()``. ``write_plots`` does both.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from flowerpress.simulations.canvas import (
    COLOURS,
    GRID,
    INK,
    MUTED,
    axes,
    bytes_axis,
    drawing,
    limits,
    new_figure,
    percent_axis,
    save_png,
    shorten,
)
from flowerpress.simulations.human import human_bytes, human_ratio, percent
from flowerpress.simulations.labels import MANY, accuracy_limits, right_labels, spread, subtitle
from flowerpress.simulations.metrics import RoundRecord
from flowerpress.simulations.rate_plots import accuracy_time_figure, tensor_rounds_figure
from flowerpress.simulations.record import Run
from flowerpress.simulations.tables import tensor_bytes

__all__ = [
    "PLOTS",
    "accuracy_bytes_figure",
    "accuracy_rounds_figure",
    "class_recall_figure",
    "tensor_bytes_figure",
    "write_plots",
]


def accuracy_bytes_figure(run: Run) -> Figure | None:
    """Accuracy against bytes sent so far in both directions, beside those of plain float32."""
    sent, raw = _cumulated(run)
    points = [r for r in run.evaluated if sent[r.round] > 0 and raw[r.round] > 0]
    if not points:
        return None
    y = [record.accuracy or 0.0 for record in points]
    figure = new_figure()
    ax = axes(
        figure,
        "Accuracy against bytes",
        "bytes sent so far, up and down, all clients",
        "accuracy",
        subtitle(run),
    )
    ax.set_xscale("log")
    x = [sent[record.round] for record in points]
    plain = [raw[record.round] for record in points]
    ax.plot(plain, y, color=MUTED, linewidth=1.4, linestyle=(0, (4, 2)))
    ax.plot(x, y, color=COLOURS[0], marker="o" if len(x) <= MANY else None, markersize=3.5)
    ax.plot(x[-1:], y[-1:], color=COLOURS[0], marker="o", markersize=7)
    low, high = limits([*x, *plain], 0.05)
    ax.set_xlim(low, high)
    accuracy_limits(ax, y)
    bytes_axis(ax.xaxis, low, high)
    percent_axis(ax.yaxis)
    top = max(y[-1 - len(y) // 3 :])  # the labels stand above the last third of the line
    _above(ax, x[-1], top, f"{shorten(run.label)}\n{human_bytes(x[-1])}", COLOURS[0])
    if plain[-1] > 1.05 * x[-1]:
        size = f"{human_bytes(plain[-1])}, {human_ratio(plain[-1] / x[-1])} as much"
        saved = f"the same rounds sent as float32\n{size}"
        _above(ax, plain[-1], top, saved, MUTED)
    return figure


def accuracy_rounds_figure(run: Run) -> Figure | None:
    """Accuracy of the model and of the worst client per round; triangles: updates left out."""
    points = run.evaluated
    if not points:
        return None
    figure = new_figure()
    ax = axes(figure, "Accuracy per round", "round", "accuracy", subtitle(run))
    rounds = [record.round for record in points]
    y = [record.accuracy or 0.0 for record in points]
    worst = [(r.round, r.worst_client.accuracy) for r in points if r.worst_client]
    mark = "o" if len(points) <= MANY else None
    ax.plot(rounds, y, color=COLOURS[0], marker=mark, markersize=3.5)
    ends = [(y[-1], f"model {percent(y[-1])}", COLOURS[0])]
    lines = list(y)
    if worst:
        ax.plot(*zip(*worst, strict=True), color=COLOURS[1], linewidth=1.4, marker=mark, ms=3)
        lines += [value for _, value in worst]
        ends.append((worst[-1][1], f"worst client {percent(worst[-1][1])}", COLOURS[1]))
    low, high = accuracy_limits(ax, lines)
    left_out = [record.round for record in run.records if record.left_out]
    if left_out:
        ax.plot(
            left_out,
            [low] * len(left_out),
            color=COLOURS[3],
            linestyle="none",
            marker="^",
            markersize=7,
            clip_on=False,
            zorder=5,
        )
        ax.set_xlabel("round   (▲ an update was left out)")
    percent_axis(ax.yaxis)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12))
    last = run.records[-1].round
    ax.set_xlim(-0.02 * max(last, 1), max(last, 1) * 1.02)
    right_labels(ax, ends, 0.055 * (high - low))
    return figure


def tensor_bytes_figure(run: Run, largest: int = 25) -> Figure | None:
    """Bytes of the ``largest`` tensors over the whole run, up and down."""
    rows = tensor_bytes(run.records, largest)
    if not rows:
        return None
    figure = new_figure(max(300, 190 + 44 * len(rows)))
    ax = axes(figure, "Bytes per tensor", "bytes over the whole run, all clients", "")
    place = np.arange(len(rows), dtype=np.float64)
    most = max(max(up, down) for _, up, down in rows)
    for shift, sizes, name, colour in (
        (-0.2, [row[1] for row in rows], "up", COLOURS[0]),
        (0.2, [row[2] for row in rows], "down", COLOURS[4]),
    ):
        ax.barh(place + shift, sizes, 0.38, color=colour, label=name)
        for at, size in zip(place + shift, sizes, strict=True):
            text = human_bytes(size)
            ax.text(size + most * 0.006, at, text, va="center", fontsize=7.5, color=MUTED)
    ax.set_yticks(place, [shorten(row[0]) for row in rows], color=INK)
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.grid(visible=False, axis="y")
    unit = 1024 ** max(0, int(math.log(max(most, 1), 1024)))
    ticks = [unit * float(at) for at in MaxNLocator(6).tick_values(0, 1.12 * most / unit)]
    ax.set_xticks([at for at in ticks if at <= 1.12 * most])
    name = human_bytes(unit).split(" ")[1]
    ax.xaxis.set_major_formatter(lambda value, _: f"{value / unit:g} {name}" if value else "0")
    ax.set_xlim(0, most * 1.12)
    ax.legend(
        loc="lower right",
        bbox_to_anchor=(1, 1),
        ncols=2,
        frameon=False,
        handlelength=1,
        borderaxespad=0.2,
    )
    return figure


def class_recall_figure(run: Run) -> Figure | None:
    """Heat map of recall: a row for each class, a column for each evaluated round."""
    points = [record for record in run.evaluated if record.recall]
    if not points:
        return None
    count = max(len(record.recall or ()) for record in points)
    names = list(run.summary.classes) if run.summary else []
    names = names if len(names) == count else [str(index) for index in range(count)]
    grid = np.full((count, len(points)), np.nan)
    for column, record in enumerate(points):
        for row, value in enumerate(record.recall or ()):
            grid[row, column] = math.nan if value is None else value
    figure = new_figure(min(max(480, 200 + (44 if count <= 20 else 20) * count), 2400))
    ax = axes(figure, "Recall per class", "round", "", subtitle(run))
    ax.set_facecolor(GRID)
    image = ax.imshow(grid, aspect="auto", cmap="cividis", vmin=0, vmax=1, interpolation="nearest")
    ax.grid(visible=False)
    for side in ax.spines.values():
        side.set_visible(False)
    step = max(1, math.ceil(count / 100))
    shown = range(0, count, step)
    small = 9 if count <= 20 else 6.5
    ax.set_yticks(list(shown), [shorten(names[at], 24) for at in shown], fontsize=small, color=INK)
    ax.tick_params(length=0)
    columns = spread(len(points), 14)
    ax.set_xticks(columns, [str(points[at].round) for at in columns])
    for at in shown:
        value = grid[at, -1]
        text = "–" if math.isnan(value) else percent(float(value))
        ax.text(len(points) - 0.5, at, f" {text}", va="center", fontsize=small, color=INK)
    ax.text(len(points) - 0.5, -0.62, " last", va="bottom", fontsize=small, color=MUTED)
    bar = figure.colorbar(image, ax=ax, pad=0.08, fraction=0.03, aspect=30)
    bar.outline.set_visible(False)
    percent_axis(bar.ax.yaxis)
    bar.ax.tick_params(length=0)
    return figure


PLOTS: dict[str, tuple[str, Callable[[Run], Figure | None]]] = {
    "accuracy_bytes": ("Accuracy against bytes, both directions", accuracy_bytes_figure),
    "accuracy_time": ("Accuracy against simulated time", accuracy_time_figure),
    "accuracy_rounds": ("Accuracy per round", accuracy_rounds_figure),
    "tensor_bytes": ("Bytes per tensor", tensor_bytes_figure),
    "tensor_rounds": ("Bits per parameter by tensor and round, uplink", tensor_rounds_figure),
    "class_recall": ("Recall per class", class_recall_figure),
}
"""File name without ".png" -> (caption, function)."""


def write_plots(run: Run, folder: Path | None = None) -> list[Path]:
    """Write ``PLOTS`` as PNG into ``folder`` (default: the run's own); return what was written."""
    paths = []
    with drawing():
        for name, (_, draw) in PLOTS.items():
            figure = draw(run)
            if figure is not None:
                paths.append(save_png(figure, (folder or run.folder) / f"{name}.png"))
    return paths


def _cumulated(run: Run) -> tuple[dict[int, int], dict[int, int]]:
    """Return bytes sent up to each round, and what float32 would have taken."""

    def add(size: Callable[[RoundRecord], int]) -> dict[int, int]:
        rounds = [record.round for record in run.records]
        return dict(zip(rounds, accumulate(map(size, run.records)), strict=True))

    return add(lambda r: r.bytes_total), add(lambda r: r.raw_bytes_up + r.raw_bytes_down)


def _above(ax: Axes, x: float, y: float, text: str, colour: str) -> None:
    """Label an end of a line, above it and ending at it; beginning there near the left edge."""
    left, right = ax.get_xlim()
    near = math.log(x / left) < 0.25 * math.log(right / left)
    ax.annotate(
        text,
        (x, y),
        (-4 if near else 4, 8),
        textcoords="offset points",
        ha="left" if near else "right",
        va="bottom",
        color=colour,
        fontsize=9,
        fontweight="bold",
    )
