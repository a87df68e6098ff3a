"""A codec with one parameter left open, ``topk(density=*)``, over a range of errors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

from benchmarks.apart import Apart
from benchmarks.files import Point, Update
from benchmarks.measuring import fill, try_codec
from flowerpress.compression.errors import ConfigError, EncodeError

__all__ = ["Curve", "interpolate"]

_RATIO = math.sqrt(2)
_LIMIT = 2.0**20
_STEPS = 8
_CLOSE = 0.003
_LEAST, _MOST = 1e-4, 0.9


class Curve:
    """Points of one codec on one update; ``at`` goes where an error is.

    The parameter is a positive number, and the error rises or falls with it.
    """

    def __init__(self, update: Update, codec: str, apart: Apart) -> None:
        self.update, self.codec = update, codec
        self._try: Callable[[float], tuple[float, float]] = lambda value: try_codec(
            update, fill(codec, value), apart
        )
        self._points: dict[float, Point] = {}

    @property
    def points(self) -> list[Point]:
        """What has been tried so far, ascending in the parameter."""
        return [self._points[value] for value in sorted(self._points)]

    def span(self, low: float, high: float) -> list[Point]:
        """Try values until the NMSE spans ``low`` to ``high``, or the codec takes no others."""
        for ratio in (_RATIO, 1 / _RATIO):
            # Up, then down: one of them makes the error larger, the other one smaller.
            value, here = self._inside()
            while 1 / _LIMIT < value < _LIMIT:
                after = self._point(value * ratio)
                if after is None or after.nmse == here.nmse:
                    break
                rises = after.nmse > here.nmse
                if (rises and here.nmse > high) or (not rises and here.nmse < low):
                    break
                value, here = value * ratio, after
        return [point for point in self.points if low / 2 <= point.nmse <= min(2 * high, 1.0)]

    def at(self, error: float) -> tuple[Point, float] | None:
        """Return the point nearest to NMSE ``error`` and its parameter, within 0.3% if there is
        one; None if the curve does not reach it.
        """
        self.span(error, error)
        for _ in range(_STEPS):
            tried = sorted((point.nmse, value) for value, point in self._points.items())
            below = [each for each in tried if each[0] <= error]
            above = [each for each in tried if each[0] > error]
            if not below or not above:
                return None
            (low, a), (high, b) = below[-1], above[0]
            best = min((below[-1], above[0]), key=lambda each: abs(math.log(each[0] / error)))
            if abs(math.log(best[0] / error)) < _CLOSE:
                break
            # On a doubly logarithmic scale the curve is nearly straight between neighbours.
            share = math.log(error / low) / math.log(high / low)
            value = a ** (1 - share) * b**share
            if self._point(value) is None or value in (a, b):
                break
        return self._points[best[1]], best[1]

    def _inside(self) -> tuple[float, Point]:
        """Return a value that loses something, but not nearly all: beyond, nothing changes."""
        for power in range(int(math.log(_LIMIT, 4))):
            for value in (4.0**-power, 4.0**power):
                point = self._point(value)
                if point is not None and _LEAST < point.nmse < _MOST:
                    return value, point
        raise SystemExit(f"{self.codec}: no value of its parameter gives an error below {_MOST}")

    def _point(self, value: float) -> Point | None:
        if value not in self._points:
            try:
                bits, error = self._try(value)
            except (ConfigError, EncodeError):
                return None
            if error <= 0:
                return None
            self._points[value] = Point(self.codec, bits, error)
        return self._points[value]


def interpolate(points: Sequence[Point], error: float) -> float | None:
    """Return the bits per parameter at an NMSE; None outside of the points.

    Straight between neighbours on a doubly logarithmic scale. Points that another one beats, with
    less error and no more bits, do not count: nobody would choose them.
    """
    kept = _undominated(points)
    for low, high in pairwise(kept):
        if low.nmse <= error <= high.nmse:
            share = math.log(error / low.nmse) / math.log(high.nmse / low.nmse)
            slope = math.log(high.bits_per_param / low.bits_per_param)
            return low.bits_per_param * math.exp(share * slope)
    return None


def _undominated(points: Sequence[Point]) -> list[Point]:
    kept: list[Point] = []
    for point in sorted(points, key=lambda point: (point.nmse, point.bits_per_param)):
        if point.nmse > 0 and (not kept or point.bits_per_param < kept[-1].bits_per_param):
            kept.append(point)
    return kept
