"""What a comparison of split inference leaves to look at: a picture, a page, and tables."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path

from matplotlib.figure import Figure

from flowerpress.compression import ConfigError
from flowerpress.simulations import page
from flowerpress.simulations.canvas import (
    COLOURS,
    INK,
    MUTED,
    axes,
    bytes_axis,
    drawing,
    limits,
    new_figure,
    percent_axis,
    save_png,
    svg,
)
from flowerpress.simulations.human import human_ratio, percent
from flowerpress.simulations.labels import right_labels
from flowerpress.simulations.links import Link
from flowerpress.simulations.split.asked import METHODS
from flowerpress.simulations.split.curve import Mean, Point, bytes_at, means, read_points
from flowerpress.simulations.split.curve_cost import COST_COLUMNS, Work, cost_cells
from flowerpress.simulations.split.inference import POINTS

__all__ = [
    "LOSSES",
    "at_equal_accuracy",
    "curve_figure",
    "equal_cells",
    "gathered_points",
    "write_curve_report",
]

LOSSES = (0.005, 0.01, 0.02, 0.05, 0.1)
"""How much accuracy may be lost, by which methods are compared."""

OURS = ("entropic", "vq")
_WHOLE = "teacher"
_DASHED = ("packed", "tuned")
_COLOURS = dict(
    zip(("reduction", "jpeg", "webp", "vq", "pca", "plain", "features"), COLOURS, strict=True)
)
"""By the first word of a method's name; our own is black."""


def gathered_points(folder: Path) -> list[Point]:
    """Return the points of all seeds in a folder.

    Raises:
        ConfigError: there are none.
    """
    paths = sorted(folder.glob(f"seed-*/{POINTS}"))
    points = [point for path in paths for point in read_points(path)]
    if not points:
        raise ConfigError(f"{folder}: holds no points; `flowerpress split compare` measures them")
    return points


def at_equal_accuracy(
    points: Sequence[Point], *, alone: bool = False
) -> list[tuple[str, list[float | None]]]:
    """Return for each method the bytes that reach the whole network's accuracy less ``LOSSES``.

    ``alone``: bytes of an example that is sent by itself. None where a method does not get there.
    """
    found = means(points)
    whole = _whole(found)
    if whole is None:
        return []
    rows = []
    for method in _methods(found):
        curve = [(size, mean.accuracy) for size, mean in _curve(found, method, alone)]
        rows.append((method, [bytes_at(whole - loss, curve) for loss in LOSSES]))
    return rows


def equal_cells(points: Sequence[Point], *, alone: bool) -> list[list[str]]:
    """Return ``at_equal_accuracy`` as text."""
    rows = at_equal_accuracy(points, alone=alone)
    learned = [sizes for method, sizes in rows if method in OURS]
    ours = [
        min((sizes[at] or math.inf for sizes in learned), default=math.inf)
        for at in range(len(LOSSES))
    ]
    out = []
    for method, sizes in rows:
        cells = [method]
        for size, own in zip(sizes, ours, strict=True):
            rated = size and own < math.inf and method not in OURS
            times = f" ({human_ratio(size / own)})" if size and rated else ""
            cells.append("–" if size is None else f"{size:,.1f}{times}")
        out.append(cells)
    return out


def curve_figure(points: Sequence[Point], title: str, *, alone: bool = False) -> Figure:
    """Draw accuracy against bytes by method; bars go from the worst to the best seed."""
    found = [mean for mean in means(points) if mean.bytes_each > 0]
    figure = new_figure(780)
    label = "bytes of an example sent by itself" if alone else "bytes of an example"
    ax = axes(figure, title, label, "accuracy", _note(points, alone))
    ax.set_xscale("log")
    ends: list[tuple[float, str, str]] = []
    sizes: list[float] = []
    for method in _methods(found):
        curve = _curve(found, method, alone)
        colour = _COLOURS.get(method.partition(",")[0], INK)
        x = [size for size, _ in curve]
        y = [mean.accuracy for _, mean in curve]
        spread = [[m.accuracy - m.low for _, m in curve], [m.high - m.accuracy for _, m in curve]]
        ax.errorbar(
            x,
            y,
            yerr=spread,
            color=colour,
            marker="o",
            markersize=6 if method in OURS else 4,
            linewidth=2.6 if method in OURS else 1.4,
            linestyle=(0, (4, 2)) if method.endswith(_DASHED) else "-",
            elinewidth=1,
            zorder=4 if method in OURS else 3,
        )
        ends.append((y[-1], method, colour))
        sizes += x
    whole = _whole(found)
    if whole is not None:
        ax.axhline(whole, color=MUTED, linewidth=1, linestyle=(0, (1, 2)))
    low, high = limits(sizes, 0.05)
    ax.set_xlim(low, high)
    bottom = min(mean.low for mean in found)
    top = max(mean.high for mean in found)
    room = max(top - bottom, 0.02)
    ax.set_ylim(bottom - 0.04 * room, top + 0.08 * room)
    bytes_axis(ax.xaxis, low, high)
    percent_axis(ax.yaxis)
    right_labels(ax, ends, 0.045 * room)
    return figure


def write_curve_report(
    folder: Path, title: str, work: Mapping[tuple[str, str], Work], link: Link, link_text: str
) -> Path:
    """Write ``report.html``, ``curve.png``, ``alone.png`` and ``points.csv``; return the page.

    Args:
        folder: of the comparison.
        title: of pictures and page.
        work: of each method and setting, for the estimates.
        link: over which an example is sent in them, and how it is called.

    Raises:
        ConfigError: there are no points, or the files cannot be written.
    """
    points = gathered_points(folder)
    pictures = []
    try:
        with drawing():
            for name, alone in (("curve", False), ("alone", True)):
                figure = curve_figure(points, title, alone=alone)
                save_png(figure, folder / f"{name}.png")
                pictures.append(page.figure(svg(figure, name), "Accuracy against bytes"))
        with (folder / POINTS).open("w", newline="") as file:
            writer = csv.DictWriter(file, [field.name for field in fields(Point)])
            writer.writeheader()
            writer.writerows(asdict(point) for point in points)
        body = [
            pictures[0],
            page.section(
                "Bytes at equal accuracy",
                page.paragraph(
                    "Bytes of an example at the accuracy of the best network that is not cut, less "
                    "so many points; in brackets how many times those of entropic or vq, whichever "
                    "is less. Between points, accuracy is linear in the logarithm of the bytes."
                ),
                _equal(points, alone=False),
            ),
            page.section(
                "An example sent by itself",
                page.paragraph(
                    "No stream is shared with other examples, and a picture file is counted whole."
                ),
                pictures[1],
                _equal(points, alone=True),
            ),
            page.section(
                "Time and energy of a device: estimates",
                page.paragraph(
                    f"Nothing of this was measured but the multiply-adds: an example by itself on "
                    f"a Jetson TX2 over {link_text}, and the server's answer; without envelopes, "
                    "and without the work of writing pictures."
                ),
                page.table(
                    COST_COLUMNS, cost_cells(means(points), work, link), text=(0, 1), name=0
                ),
            ),
            page.section("All points", _all(points)),
            page.section("Methods", page.definitions(METHODS)),
        ]
        path = folder / "report.html"
        path.write_text(page.page(title, _note(points, False), body), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{folder}: cannot write there: {error}") from error
    return path


def _whole(found: Sequence[Mean]) -> float | None:
    """The accuracy of the best network that is not cut, inputs as they are."""
    return max((m.accuracy for m in found if m.method.partition(",")[0] == _WHOLE), default=None)


def _methods(found: Sequence[Mean]) -> list[str]:
    named = {mean.method for mean in found}
    return [method for method in METHODS if method in named and method != _WHOLE]


def _curve(found: Sequence[Mean], method: str, alone: bool) -> list[tuple[float, Mean]]:
    own = [mean for mean in found if mean.method == method]
    return sorted(
        ((mean.bytes_alone if alone else mean.bytes_each, mean) for mean in own),
        key=lambda pair: pair[0],
    )


def _note(points: Sequence[Point], alone: bool) -> str:
    seeds = len({point.seed for point in points})
    first = points[0]
    each = "one by one" if alone else f"{first.batch} in a stream"
    return f"{first.samples:,} test examples, {each}; {seeds} seed{'s' * (seeds > 1)}"


def _equal(points: Sequence[Point], *, alone: bool) -> str:
    columns = ["method", *(f"-{percent(loss)}" for loss in LOSSES)]
    return page.table(columns, equal_cells(points, alone=alone), text=(0,), name=0)


def _all(points: Sequence[Point]) -> str:
    columns = ["method", "setting", "seeds", "accuracy", "lowest", "highest", "bytes", "alone"]
    rows = [
        [
            mean.method,
            mean.setting,
            str(mean.seeds),
            percent(mean.accuracy, 2),
            percent(mean.low, 2),
            percent(mean.high, 2),
            f"{mean.bytes_each:,.1f}",
            f"{mean.bytes_alone:,.1f}",
        ]
        for mean in means(points)
    ]
    return page.table(columns, rows, text=(0, 1), name=0)
