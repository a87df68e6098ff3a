"""The pictures of a run's rates: bits per tensor and round, and accuracy against simulated time.

Each ``*_figure`` returns a matplotlib figure, or None where the run measured nothing of the kind.
"""

from __future__ import annotations

import math
from itertools import accumulate

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from flowerpress.simulations.canvas import (
    COLOURS,
    GRID,
    INK,
    MUTED,
    axes,
    new_figure,
    percent_axis,
    shorten,
)
from flowerpress.simulations.human import duration, percent
from flowerpress.simulations.labels import MANY, accuracy_limits, right_labels, spread, subtitle
from flowerpress.simulations.metrics import RoundRecord
from flowerpress.simulations.record import Run

__all__ = ["accuracy_time_figure", "simulated_clock", "tensor_bits", "tensor_rounds_figure"]

_CLOCKS = ((1.0, "seconds"), (60.0, "minutes"), (3600.0, "hours"))


def tensor_bits(
    run: Run, largest: int = 40
) -> tuple[list[str], list[RoundRecord], NDArray[np.float64]]:
    """Return tensors, rounds, and the bits that a parameter took on the uplink in each.

    The bits, float64 (tensors, rounds), are means over the clients whose updates were taken; 0
    where nothing of a tensor was sent. The tensors are the ``largest`` by bytes, in the model's
    order; the rounds are those in which an update was taken. All are empty without a summary, which
    has the sizes.
    """
    sizes = {
        info.name: math.prod(info.shape) for info in (run.summary.tensors if run.summary else ())
    }
    rounds = [r for r in run.records if _answered(r) and any(r.up_by_tensor.get(n) for n in sizes)]
    total = {name: sum(r.up_by_tensor.get(name, 0) for r in rounds) for name in sizes}
    kept = set(sorted(sizes, key=lambda name: (-total[name], name))[:largest])
    names = [name for name in sizes if name in kept and sizes[name]] if rounds else []
    bits = [
        [8 * r.up_by_tensor.get(name, 0) / (sizes[name] * _answered(r)) for r in rounds]
        for name in names
    ]
    return names, rounds, np.array(bits, np.float64).reshape(len(names), len(rounds))


def tensor_rounds_figure(run: Run) -> Figure | None:
    """Heat map of bits per parameter: a row for each tensor, a column for each round.

    A triangle stands above a round in which the plan changed.
    """
    names, rounds, bits = tensor_bits(run)
    sent = bits[bits > 0]
    if not sent.size:
        return None
    count = len(names)
    figure = new_figure(min(max(420, 210 + (40 if count <= 20 else 26) * count), 2400))
    ax = axes(figure, "Bits per parameter on the uplink", "round", "", subtitle(run))
    ax.set_facecolor(GRID)
    low, high = float(sent.min()), float(sent.max())
    if high < 1.02 * low:
        low, high = low / 1.5, high * 1.5
    image = ax.imshow(
        np.ma.masked_less_equal(bits, 0),
        aspect="auto",
        cmap="cividis",
        norm=LogNorm(low, high),
        interpolation="nearest",
    )
    ax.grid(visible=False)
    for side in ax.spines.values():
        side.set_visible(False)
    small = 9 if count <= 20 else 7
    ax.set_yticks(range(count), [shorten(name, 28) for name in names], fontsize=small, color=INK)
    ax.tick_params(length=0)
    columns = spread(len(rounds), 14)
    ax.set_xticks(columns, [str(rounds[at].round) for at in columns])
    for at, row in enumerate(bits):
        text = f" {row.mean():.3g}" if row.any() else " –"
        ax.text(len(rounds) - 0.5, at, text, va="center", fontsize=small, color=INK)
    ax.text(len(rounds) - 0.5, -0.62, " mean", va="bottom", fontsize=small, color=MUTED)
    changed = [at for at, record in enumerate(rounds) if record.plan is not None]
    if changed:
        ax.plot(
            changed,
            [1.012] * len(changed),
            transform=ax.get_xaxis_transform(),
            color=COLOURS[1],
            linestyle="none",
            marker="v",
            markersize=6 if len(changed) <= MANY else 3,
            clip_on=False,
        )
        ax.set_xlim(-0.5, len(rounds) - 0.5)
        ax.set_xlabel("round   (▼ the plan changed)")
    bar = figure.colorbar(image, ax=ax, pad=0.09, fraction=0.03, aspect=30)
    bar.outline.set_visible(False)
    marks = [low, math.sqrt(low * high), high]
    bar.set_ticks(marks, labels=[f"{mark:.2g}" for mark in marks])
    bar.ax.minorticks_off()
    bar.ax.tick_params(which="both", length=0)
    return figure


def accuracy_time_figure(run: Run) -> Figure | None:
    """Accuracy against simulated time; triangles: rounds whose deadline someone missed."""
    clock = simulated_clock(run)
    points = [record for record in run.evaluated if record.round in clock]
    if not points or not max(clock.values()):
        return None
    unit, name = max(
        (pair for pair in _CLOCKS if pair[0] <= max(clock.values()) / 2), default=_CLOCKS[0]
    )
    figure = new_figure()
    ax = axes(
        figure,
        "Accuracy against simulated time",
        f"{name} on simulated links",
        "accuracy",
        subtitle(run),
    )
    x = [clock[record.round] / unit for record in points]
    y = [record.accuracy or 0.0 for record in points]
    ax.plot(x, y, color=COLOURS[0], marker="o" if len(x) <= MANY else None, markersize=3.5)
    low, high = accuracy_limits(ax, y)
    late = [clock[r.round] / unit for r in run.records if r.missed and r.round in clock]
    if late:
        ax.plot(
            late,
            [low] * len(late),
            color=COLOURS[3],
            linestyle="none",
            marker="^",
            markersize=6 if len(late) <= MANY else 3,
            clip_on=False,
            zorder=5,
        )
        ax.set_xlabel(f"{name} on simulated links   (▲ a client missed the deadline)")
    percent_axis(ax.yaxis)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=12))
    ax.set_xlim(-0.02 * max(x), 1.02 * max(x))
    end = f"{percent(y[-1])}\n{duration(clock[points[-1].round])}"
    right_labels(ax, [(y[-1], end, COLOURS[0])], 0.055 * (high - low))
    return figure


def simulated_clock(run: Run) -> dict[int, float]:
    """Return the simulated seconds from the run's begin to each round's end; empty without any."""
    timed = [r for r in run.records if r.simulated_seconds is not None]
    seconds = accumulate(r.simulated_seconds or 0.0 for r in timed)
    return dict(zip([r.round for r in timed], seconds, strict=True))


def _answered(record: RoundRecord) -> int:
    """Return how many clients' updates were taken."""
    return max(record.clients - len({left.client for left in record.left_out}), 0)
