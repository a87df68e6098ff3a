"""The pictures of the tuner. Call them, and save what they return, inside ``canvas.drawing()``."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from flowerpress.compression.rates.plan import RatePlan
from flowerpress.simulations.canvas import (
    COLOURS,
    INK,
    MUTED,
    PAPER,
    axes,
    bytes_axis,
    limits,
    new_figure,
    percent_axis,
    shorten,
)
from flowerpress.simulations.human import human_bytes
from flowerpress.simulations.tuning.front import FrontPoint
from flowerpress.simulations.tuning.profile import Profile
from flowerpress.simulations.tuning.solving import Predicted
from flowerpress.simulations.tuning.tables import significant

__all__ = ["curves_figure", "front_figure", "tensors_figure"]

_DASHES: tuple[str | tuple[int, tuple[float, ...]], ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)))
_MARKS = "os^Dv"
_CURVES = 12
_BARS = 25


def curves_figure(profile: Profile, plan: RatePlan | None = None) -> Figure | None:
    """Error against bytes for each of the tensors with most energy; rings: what the plan chose.

    Settings that another one beats in both are dots off the line. None where no tensor has two
    settings to compare.
    """
    points = profile.points
    order = np.argsort(-points.energies, kind="stable")
    shown = [int(at) for at in order if _drawable(profile, int(at)).sum() > 1][:_CURVES]
    if not shown:
        return None
    figure = new_figure(740)
    more = len(points.names) - len(shown)
    note = f"the {len(shown)} tensors with most energy of {len(points.names)}" if more else ""
    ax = axes(figure, "Error against bytes, tensor by tensor", "bytes of the tensor", "NMSE", note)
    chosen = {entry.name: entry for entry in plan.entries} if plan else {}
    sizes: list[float] = []
    for number, at in enumerate(shown):
        colour, style = COLOURS[number % len(COLOURS)], _DASHES[number // len(COLOURS) % 3]
        usable = _drawable(profile, at)
        x = points.bytes[at][usable]
        y = points.errors[at][usable] / points.energies[at]
        sizes += x.tolist()
        best = _unbeaten(x, y)
        ax.plot(x, y, color=colour, linestyle="none", marker=".", markersize=4, alpha=0.6)
        ax.plot(
            x[best], y[best], color=colour, linestyle=style, label=shorten(points.names[at], 30)
        )
        entry = chosen.get(points.names[at])
        if entry and entry.bytes and entry.error:
            sizes.append(entry.bytes)
            ax.plot(
                [entry.bytes],
                [entry.error],
                color=colour,
                marker="o",
                markersize=10,
                markerfacecolor=PAPER,
                markeredgewidth=2.2,
                zorder=5,
            )
    ax.set_xscale("log")
    ax.set_yscale("log")
    low, high = limits(sizes, 0.04)
    ax.set_xlim(low, high)
    bytes_axis(ax.xaxis, low, high)
    _plain_log(ax)
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, fontsize=8.5)
    return figure


def tensors_figure(profile: Profile, plan: RatePlan | None = None) -> Figure:
    """Bytes of each tensor in the plan (without one: its share of the energy), and sensitivities.

    Of many tensors the largest are drawn.
    """
    energies = profile.energies
    tensors = list(energies)
    total = sum(energies.values()) or 1.0
    taken = {entry.name: entry.bytes or 0.0 for entry in plan.entries} if plan else {}
    left = np.array([taken.get(name, 0.0) if plan else energies[name] / total for name in tensors])
    shown = np.sort(np.argsort(-left, kind="stable")[:_BARS])
    names = [shorten(tensors[at], 30) for at in shown]
    weights = {
        name: np.array(list(profile.by_tensor(profile.weights(name)).values()))
        for name in profile.measured()
        if name != "none"
    }
    figure = new_figure(max(320, 190 + 30 * len(names)))
    sides = figure.subplots(1, 2 if weights else 1, sharey=True, squeeze=False)[0]
    place = np.arange(len(names), dtype=np.float64)
    ax: Axes = sides[0]
    title = "Bytes per tensor" if plan else "Share of the update's energy"
    ax.set_title(title, pad=12)
    ax.barh(place, left[shown], 0.6, color=COLOURS[0])
    most = float(left[shown].max(initial=0.0)) or 1.0
    for at, value in zip(place, left[shown], strict=True):
        text = human_bytes(float(value)) if plan else f"{100 * value:.1f}%"
        ax.text(value + most * 0.012, at, text, va="center", fontsize=7.5, color=MUTED)
    ax.set_xlim(0, most * 1.2)
    if plan:
        _bytes_linear(ax, most)
    else:
        percent_axis(ax.xaxis)
    ax.set_yticks(place, names, color=INK)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.grid(visible=False, axis="y")
    if weights:
        other: Axes = sides[1]
        other.set_title("Weight of an error there (mean 1)", pad=12)
        for number, (name, values) in enumerate(weights.items()):
            other.plot(
                values[shown],
                place,
                color=COLOURS[1 + number],
                linestyle="none",
                marker=_MARKS[number],
                markersize=6,
                label=name,
            )
        other.axvline(1.0, color=MUTED, linewidth=1)
        other.set_xscale("log")
        _plain(other, "x")
        other.tick_params(axis="y", length=0)
        other.set_xlabel("below 1: an error there matters less than elsewhere")
        other.legend(loc="upper left", bbox_to_anchor=(1.0, 1), frameon=False)
    return figure


def front_figure(
    points: Sequence[FrontPoint],
    *,
    chosen: Predicted | None = None,
    label: str = "the plan",
    weighted: bool = False,
) -> Figure | None:
    """Error against the bytes of a message, a line for each allocator, and the plan's own point.

    ``weighted``: errors count by the weights of a sensitivity. None where there is nothing to draw.
    """
    figure = new_figure(680)
    ax = axes(
        figure,
        "What every budget gives",
        "bytes of a message: one client, one round",
        "weighted NMSE" if weighted else "NMSE",
        "expected from the profile; lower and further left is better",
    )
    sizes: list[float] = []
    for number, name in enumerate(dict.fromkeys(point.allocator for point in points)):
        own = [point for point in points if point.allocator == name]
        own.sort(key=lambda point: (point.bytes, point.nmse))
        line = [(p.bytes, p.weighted if weighted else p.nmse) for p in own]
        line = [(x, y) for x, y in line if x > 0 and y > 0]
        if not line:
            continue
        sizes += [x for x, _ in line]
        ax.plot(
            *zip(*line, strict=True),
            color=COLOURS[number % len(COLOURS)],
            linestyle=_DASHES[number % 3],
            marker=_MARKS[number % len(_MARKS)],
            markersize=3.5,
            label=name,
        )
    if not sizes:
        return None
    ax.set_xscale("log")
    ax.set_yscale("log")
    error = None if chosen is None else chosen.weighted if weighted else chosen.nmse
    if chosen is not None and error:
        sizes.append(chosen.bytes)
        ax.plot(
            [chosen.bytes],
            [error],
            color=COLOURS[6],
            marker="o",
            markersize=12,
            markerfacecolor=PAPER,
            markeredgewidth=2.4,
            linestyle="none",
            zorder=6,
        )
        bottom, top = ax.get_ylim()
        low_down = math.log(error / bottom) < 0.2 * math.log(top / bottom)
        ax.annotate(
            f"{shorten(label, 28)}\n{human_bytes(chosen.bytes)}, {significant(error)}",
            (chosen.bytes, error),
            (-10, 10 if low_down else -8),
            textcoords="offset points",
            ha="right",
            va="bottom" if low_down else "top",
            color=COLOURS[6],
            fontsize=9,
            fontweight="bold",
            path_effects=[withStroke(linewidth=3, foreground=PAPER)],
        )
    low, high = limits(sizes, 0.04)
    ax.set_xlim(low, high)
    bytes_axis(ax.xaxis, low, high)
    _plain_log(ax)
    ax.legend(loc="upper right", frameon=False)
    return figure


def _bytes_linear(ax: Axes, most: float) -> None:
    """Label a linear axis from 0 with round numbers of one unit."""
    unit = 1024 ** max(0, int(math.log(max(most, 1), 1024)))
    name = human_bytes(unit).split(" ")[1]
    ticks = [unit * float(at) for at in MaxNLocator(5).tick_values(0, 1.2 * most / unit)]
    ax.set_xticks([at for at in ticks if at <= 1.2 * most])
    ax.xaxis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{value / unit:g} {name}" if value else "0")
    )


def _drawable(profile: Profile, at: int) -> NDArray[np.bool_]:
    """Return which settings of a tensor have a place on two logarithmic axes."""
    sizes, errors = profile.points.bytes[at], profile.points.errors[at]
    usable = np.isfinite(sizes) & (sizes > 0) & (errors > 0) & (profile.points.energies[at] > 0)
    return np.asarray(usable, np.bool_)


def _unbeaten(x: NDArray[np.float64], y: NDArray[np.float64]) -> list[int]:
    """Return the points that none beats in both, by ascending ``x``."""
    best: list[int] = []
    for at in np.lexsort((y, x)):
        if not best or y[at] < y[best[-1]]:
            best.append(int(at))
    return best


def _plain_log(ax: Axes) -> None:
    _plain(ax, "y")


def _plain(ax: Axes, which: str) -> None:
    """Label a logarithmic axis with plain numbers; between powers of ten where it spans few."""
    axis = ax.yaxis if which == "y" else ax.xaxis
    low, high = ax.get_ylim() if which == "y" else ax.get_xlim()
    few = low > 0 and high / low < 50
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(
        FuncFormatter(lambda value, _: f"{value:g}" if few and f"{value:e}"[0] in "25" else "")
    )
