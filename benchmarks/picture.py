"""Bits per parameter against error, both logarithmic: one panel for each update."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.files import Point

__all__ = ["draw"]

_COLUMNS = 3
_PANEL = (5.2, 4.2)
_EXACT = 1e-6
_MARKERS = "os^vDP*X<>"
_DASHES = ("--", ":", "-.")

Curves = Mapping[str, Sequence[Point]]


def draw(file: Path, panels: Mapping[str, Curves], references: Mapping[str, Curves]) -> None:
    """Write a PNG. ``panels``: update -> codec -> points; a codec's settings make one line.

    ``references`` are drawn dashed, where the update has some. What loses next to nothing would
    only squeeze the rest and is left out.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise SystemExit("pictures need matplotlib; run: pip install 'flowerpress[simulation]'")
    from matplotlib.figure import Figure

    columns = min(2 if len(panels) == 4 else _COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure((columns * _PANEL[0], rows * _PANEL[1]), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    styles: dict[str, dict[str, Any]] = {}
    for axes, (update, curves) in zip(grid.flat, panels.items(), strict=False):
        axes.set(xscale="log", yscale="log", xlabel="NMSE", ylabel="bits/param")
        axes.set_title(update, fontsize=9)
        axes.grid(True, which="both", alpha=0.2)
        for codec, points in _families(curves).items():
            style = styles.setdefault(codec, _style(len(styles)))
            _line(axes, points, label=codec, **style)
        for number, (label, points) in enumerate(references.get(update, {}).items()):
            dashes = _DASHES[number % len(_DASHES)]
            _line(axes, points, label=label, color="black", linestyle=dashes, marker=".", alpha=0.6)
    for axes in list(grid.flat)[len(panels) :]:
        axes.set_visible(False)
    names: dict[str, Any] = {}
    for axes in grid.flat:
        names |= {text: line for line, text in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(
        names.values(), names.keys(), loc="outside lower center", ncols=2 * columns, fontsize=7
    )
    figure.savefig(file, dpi=110)


def _families(curves: Curves) -> Curves:
    """Return the points of all settings of each codec together, by error."""
    out: dict[str, list[Point]] = {}
    for codec, points in curves.items():
        name = codec.partition("(")[0] + (" (fast)" if "fast=true" in codec else "")
        out.setdefault(name, []).extend(points)
    return {name: sorted(points, key=lambda p: p.nmse) for name, points in out.items()}


def _style(index: int) -> dict[str, Any]:
    marker = _MARKERS[(index + index // 10) % len(_MARKERS)]  # no two have both alike
    return {"color": f"C{index % 10}", "marker": marker, "markersize": 5}


def _line(axes: Any, points: Sequence[Point], **style: Any) -> None:
    lossy = [point for point in points if point.nmse > _EXACT]
    if lossy:
        axes.plot([p.nmse for p in lossy], [p.bits_per_param for p in lossy], **style)
