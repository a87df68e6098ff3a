"""The look of every picture: sizes, fonts, colours, byte axes, and how a figure becomes a file.

matplotlib's object interface only (no pyplot, no state that outlives a call). Importing this file
without matplotlib raises ConfigError that says how to install it.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flowerpress.compression.errors import ConfigError
from flowerpress.simulations.human import human_bytes

try:
    import matplotlib as mpl
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter, NullLocator
except ImportError as error:
    raise ConfigError(
        "pictures and reports need matplotlib, which is not installed: "
        "pip install 'flowerpress[simulation]' -c constraints.txt"
    ) from error

__all__ = [
    "COLOURS",
    "GRID",
    "INK",
    "MUTED",
    "PAPER",
    "WIDTH",
    "axes",
    "byte_ticks",
    "bytes_axis",
    "drawing",
    "limits",
    "new_figure",
    "percent_axis",
    "save_png",
    "second_ticks",
    "seconds_axis",
    "shorten",
    "spread_apart",
    "svg",
]

DPI = 150
WIDTH = 1200
"""Pixels of every picture's width."""

INK, MUTED, GRID, PAPER = "#1c2126", "#5d6975", "#e4e8ec", "#fffffe"
"""Text, lesser text, grid lines and ground. ``svg`` turns them into CSS variables by value, so
no colour here is one that matplotlib leaves out as a default (black, white)."""

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#6b7280")
"""The colours of Okabe and Ito ("Color Universal Design", 2008) that carry on white, and a grey:
told apart with any of the usual kinds of colour blindness."""

_VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--line", PAPER: "--paper"} | {
    colour: f"--c{index}" for index, colour in enumerate(COLOURS)
}

_STYLE: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.5,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 12,
    "axes.titlecolor": INK,
    "axes.labelsize": 9.5,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": MUTED,
    "axes.facecolor": PAPER,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "text.parse_math": False,  # a name with dollar signs is no formula
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "lines.linewidth": 2.0,
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "svg.fonttype": "path",
}

_CLOCK = ((1.0, 0.0, 60.0), (60.0, 1.0, 60.0), (3600.0, 1.0, 24.0), (86_400.0, 1.0, math.inf))
"""Units of time in seconds, and from how many to how many of them they are used."""


@contextmanager
def drawing() -> Iterator[None]:
    """Draw with the house's style, whatever the user's own matplotlibrc says."""
    with mpl.rc_context(), warnings.catch_warnings():
        # A class name in a script that the font lacks shows as boxes: no reason to warn twice.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        settings: Any = mpl.rcParams
        mpl.rcdefaults()  # leaves the backend alone
        settings.update(_STYLE)
        yield


def new_figure(height: int = 720) -> Figure:
    """Return an empty figure of ``WIDTH`` x ``height`` pixels."""
    figure = Figure(figsize=(WIDTH / DPI, height / DPI), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def axes(figure: Figure, title: str, x: str, y: str, note: str = "") -> Axes:
    """Return the figure's one pair of axes; ``note`` stands under the title."""
    made = figure.add_subplot()
    made.set_title(title, pad=26 if note else 12)
    if note:
        made.annotate(
            note,
            (0, 1),
            (0, 9),
            xycoords="axes fraction",
            textcoords="offset points",
            color=MUTED,
        )
    made.set_xlabel(x)
    made.set_ylabel(y)
    return made


def bytes_axis(axis: Axis, low: float, high: float) -> None:
    """Give a logarithmic axis from ``low`` to ``high`` bytes round ticks such as 10 KiB, 1 MiB."""
    ticks = byte_ticks(low, high)
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_major_formatter(FixedFormatter([_short_bytes(tick) for tick in ticks]))
    axis.set_minor_locator(NullLocator())


def seconds_axis(axis: Axis, low: float, high: float) -> None:
    """Give a logarithmic axis from ``low`` to ``high`` seconds round ticks such as 10 s, 5 min."""
    ticks = second_ticks(low, high)
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_major_formatter(FixedFormatter([_short_time(tick) for tick in ticks]))
    axis.set_minor_locator(NullLocator())


def second_ticks(low: float, high: float) -> list[float]:
    """Return 3 to 9 round times in [low, high], in seconds; fewer only where the range is tiny."""
    ticks: list[float] = []
    for digits in ((1,), (1, 3), (1, 2, 5), range(1, 10), [tenth / 10 for tenth in range(10, 100)]):
        steps = [digit * 10.0**power for power in range(-6, 7) for digit in digits]
        # As clocks have them: up to 60 seconds, 60 minutes, 24 hours, and then days.
        every = (unit * x for unit, first, end in _CLOCK for x in steps if first <= x < end)
        ticks = sorted(tick for tick in every if low <= tick <= high)
        if len(ticks) >= 3:
            break
    return ticks[:: math.ceil(len(ticks) / 9) or 1]


def byte_ticks(low: float, high: float) -> list[float]:
    """Return 3 to 9 round byte counts in [low, high]; fewer only where the range is tiny."""
    units = [1024**power for power in range(5)]
    ticks: list[float] = []
    for digits in ((1,), (1, 3), (1, 2, 5), range(1, 10), [tenth / 10 for tenth in range(10, 100)]):
        steps = [digit * power for power in (1, 10, 100) for digit in digits]
        ticks = [unit * step for unit in units for step in steps if low <= unit * step <= high]
        if len(ticks) >= 3:
            break
    return ticks[:: math.ceil(len(ticks) / 9) or 1]


def spread_apart(heights: Sequence[float], apart: float, low: float, high: float) -> list[float]:
    """Move ascending ``heights`` as little as needed to lie ``apart`` or more, inside [low, high].

    Where they do not all fit, they begin at ``low`` and go beyond ``high``.
    """
    moved = list(heights)
    for at in range(1, len(moved)):
        moved[at] = max(moved[at], moved[at - 1] + apart)
    ceiling = high
    for at in reversed(range(len(moved))):
        moved[at] = min(moved[at], ceiling)
        ceiling = moved[at] - apart
    if moved and moved[0] < low:
        return [max(low + at * apart, height) for at, height in enumerate(moved)]
    return moved


def percent_axis(axis: Axis) -> None:
    """Label fractions of 1 as percentages."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}%"))


def shorten(name: str, length: int = 42) -> str:
    """Return a name for a label: printable, and cut in the middle where it is too long."""
    shown = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in name)
    if shown.isspace() or not shown:
        return repr(shown)
    if len(shown) <= length:
        return shown
    head = (length - 1) // 2
    return f"{shown[:head]}…{shown[-(length - 1 - head) :]}"


def save_png(figure: Figure, path: Path) -> Path:
    """Write the figure as PNG with the pixels it was made for."""
    figure.savefig(path, format="png", dpi=DPI, metadata={"Software": None})
    return path


def svg(figure: Figure, prefix: str) -> str:
    """Return the figure as SVG to stand inside an HTML page.

    Its colours are CSS variables, its ids begin with ``prefix`` (unique in the page), nothing in
    it refers to anything outside: no namespace addresses, no metadata, no comments.
    """
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": prefix}):
        empty = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", metadata=empty)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.S)
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.S)
    text = re.sub(r"<style[^>]*>.*?</style>\s*", "", text, flags=re.S)
    head, rest = text.split(">", 1)
    box = re.search(r'viewBox="[^"]*"', head)
    assert box is not None
    rest = re.sub(r'\bid="', f'id="{prefix}-', rest)
    rest = rest.replace("url(#", f"url(#{prefix}-").replace('href="#', f'href="#{prefix}-')
    for colour, variable in _VARIABLES.items():
        rest = rest.replace(colour, f"var({variable})")
    return f'<svg {box.group()} role="img" class="plot">{rest}'


def _short_bytes(value: float) -> str:
    number, unit = human_bytes(value).split(" ")
    return f"{float(number):g} {unit}"


def _short_time(value: float) -> str:
    for unit, name in ((86_400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if value >= unit:
            return f"{value / unit:.3g} {name}"
    return f"{value:.3g} s"


def limits(values: Sequence[float], margin: float) -> tuple[float, float]:
    """Return limits for a logarithmic axis: the values' range and ``margin`` of it on each side."""
    low, high = min(values), max(values)
    room = max(math.log(high / low) * margin, math.log(1.15))
    return low / math.exp(room), high * math.exp(room)
