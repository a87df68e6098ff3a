"""Two codecs at equal error: bits per parameter of one over the other's, and how fast they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich.box import SIMPLE
from rich.table import Table

from benchmarks import nnc
from benchmarks.apart import Apart
from benchmarks.files import Point, size_of
from benchmarks.measuring import fill, measure, seconds
from benchmarks.sweeping import Curve, interpolate

__all__ = ["TARGETS", "Match", "Speed", "match", "match_table", "speed", "speed_table"]

TARGETS = (0.05, 0.1, 0.2, 0.3, 0.4)


@dataclass(frozen=True)
class Match:
    """``bits`` of ``codec`` and ``theirs`` of the peer at the same NMSE, per parameter."""

    update: str
    codec: str
    nmse: float
    bits: float
    theirs: float

    @property
    def ratio(self) -> float:
        """Below 1 where ``codec`` needs fewer bits."""
        return self.bits / self.theirs


@dataclass(frozen=True)
class Speed:
    """Millions of parameters a second of processor time, in one process: ours, then theirs."""

    update: str
    codec: str
    encode: float
    decode: float
    their_encode: float
    their_decode: float


def match(curve: Curve, theirs: Sequence[Point], targets: Sequence[float]) -> list[Match]:
    """Return how the codec of ``curve`` stands against a peer's points.

    Ours are whole messages, decoded by another process, searched for each NMSE and interpolated
    over what is left (0.3%). Theirs are interpolated, too, which on such curves makes them a
    little smaller than they are. An NMSE that either side does not reach is left out.
    """
    found = []
    for target in targets:
        peer = interpolate(theirs, target)
        if peer is None or curve.at(target) is None:
            continue
        own = interpolate(curve.points, target)
        if own is not None:
            found.append(Match(curve.update.name, curve.codec, target, own, peer))
    return found


def speed(
    curve: Curve, theirs: Sequence[Point], error: float, apart: Apart, repeat: int
) -> Speed | None:
    """Return both speeds at about NMSE ``error``, one after the other in this process.

    None where either side does not reach it, or the points do not tell NNCodec's qp.
    """
    update = curve.update
    known = [point for point in theirs if point.qp is not None]
    ours = curve.at(error)
    if not known or ours is None:
        return None
    row = measure(update, fill(curve.codec, ours[1]), apart, repeat, memory=False)
    nearest = min(known, key=lambda point: abs(math.log(point.nmse / error)))
    assert nearest.qp is not None
    assert row.encode_mparams is not None
    assert row.decode_mparams is not None
    settings = nnc.Settings(nearest.qp)
    stream = nnc.encode(update.arrays, settings)
    size = size_of(update.arrays) / 1e6
    return Speed(
        update.name,
        curve.codec,
        row.encode_mparams,
        row.decode_mparams,
        size / seconds(lambda: nnc.encode(update.arrays, settings), 1),
        size / seconds(lambda: nnc.decode(stream), repeat),
    )


def match_table(codec: str, label: str, matches: Sequence[Match]) -> Table:
    """Return a table of ``matches``: a line for each update, a column for each NMSE."""
    table = Table(title=f"{codec} against {label}: bits/param, ratio", box=SIMPLE)
    table.title_justify = "left"
    table.add_column("update", no_wrap=True)
    targets = sorted({each.nmse for each in matches})
    for target in targets:
        table.add_column(f"NMSE {target:g}", justify="right", no_wrap=True)
    table.add_column("mean", justify="right", no_wrap=True)
    for name in dict.fromkeys(each.update for each in matches):
        own = [each for each in matches if each.update == name]
        at = {each.nmse: f"{each.bits:.4f} {each.ratio:.3f}" for each in own}
        table.add_row(name, *(at.get(t, "-") for t in targets), _mean(own))
    columns = [_mean([each for each in matches if each.nmse == target]) for target in targets]
    table.add_section()
    table.add_row("geometric mean", *columns, _mean(matches))
    return table


def speed_table(speeds: Sequence[Speed], error: float) -> Table:
    """Return a table of ``speeds``."""
    table = Table(title=f"M parameters/s at NMSE {error:g}, ours and NNCodec's", box=SIMPLE)
    table.title_justify = "left"
    table.add_column("update", no_wrap=True)
    for title in ("encode", "NNCodec", "times", "decode", "NNCodec", "times"):
        table.add_column(title, justify="right", no_wrap=True)
    for each in speeds:
        pairs = ((each.encode, each.their_encode), (each.decode, each.their_decode))
        cells = [f for a, b in pairs for f in (f"{a:.2f}", f"{b:.2f}", f"{a / b:.2f}")]
        table.add_row(each.update, *cells)
    return table


def _mean(matches: Sequence[Match]) -> str:
    return f"{np.exp(np.mean([math.log(each.ratio) for each in matches])):.3f}"
