"""What the pictures of a run share: subtitle, limits of accuracies, ticks, labels at the right."""

from __future__ import annotations

import math

from matplotlib.axes import Axes

from flowerpress.simulations.canvas import shorten, spread_apart
from flowerpress.simulations.record import Run

__all__ = ["MANY", "accuracy_limits", "right_labels", "spread", "subtitle"]

MANY = 40
"""More points than this are drawn as a line without marks."""


def subtitle(run: Run) -> str:
    """Return e.g. "digits, stc, seed 3"."""
    task = run.config.get("task")
    parts = [str(task)] if task else []
    parts.append(run.label)
    if run.seed is not None:
        parts.append(f"seed {run.seed}")
    return ", ".join(shorten(part) for part in parts)


def accuracy_limits(ax: Axes, values: list[float]) -> tuple[float, float]:
    """Fit the axis to the values with room for labels above; return its limits."""
    low, high = min(values), max(values)
    room = max(high - low, 0.02)
    ax.set_ylim(low - 0.06 * room, high + 0.16 * room)
    return ax.get_ylim()


def right_labels(ax: Axes, ends: list[tuple[float, str, str]], apart: float) -> None:
    """Label lines at the right edge, pushed apart to at least ``apart`` in data units.

    ``ends`` are (height, text, colour).
    """
    ends = sorted(ends)
    heights = spread_apart([end[0] for end in ends], apart, *ax.get_ylim())
    for height, (_, text, colour) in zip(heights, ends, strict=True):
        ax.annotate(
            text,
            (1, height),
            (6, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            va="center",
            color=colour,
            fontsize=9,
            fontweight="bold",
        )


def spread(count: int, most: int) -> list[int]:
    """Return at most ``most`` positions out of ``count``, evenly spaced from the first."""
    return list(range(0, count, max(1, math.ceil(count / most))))
