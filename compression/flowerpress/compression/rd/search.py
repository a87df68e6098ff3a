"""The search for the step that meets a budget: few tries, and cheap forecasts between them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from flowerpress.compression.errors import ConfigError
from flowerpress.compression.rd.body import SMALLEST_STEP

__all__ = ["LARGEST_STEP", "Try", "bracket", "settle"]

LARGEST_STEP = 1e38

_FREE = 2
_MOST_PASSES = 5
_TOLERANCE = 0.015
_AIM = 0.993  # of a budget: what is over it is of no use
_FAR = 1.3
_TINY = 1e-9


@dataclass(frozen=True)
class Try:
    """All tensors coded with one step. ``value`` is what the budget is about.

    ``like`` is the step whose views and ranks they have, if it is another one.
    """

    step: float
    value: float
    bodies: list[bytes]
    like: float | None = None


def settle(
    tried: Callable[[float, float | None], Try],
    forecast: Callable[[float], float],
    target: float,
    slope: float,
    steps: tuple[float, float],
) -> list[Try]:
    """Return tries, the first with a value of at most ``target`` and not much below.

    A forecast is cheap, and off by a factor that hardly depends on the step: two tries go where
    it points. Views and ranks are then those of the nearer one, since bytes and errors jump where
    they change, and the secant method on logarithms does the rest; ``slope`` is its first guess.
    All steps lie between ``steps``; with the larger one, nothing is left of any tensor.

    Raises:
        ConfigError: a number of bytes that even an update with nothing in it exceeds.
    """
    aim = target * _AIM
    free: list[Try] = []
    factor = 1.0
    while len(free) < _FREE:
        free.append(tried(_solve(forecast, aim * factor, steps), None))
        if target * (1 - _TOLERANCE) <= free[-1].value <= target:
            break
        factor = max(forecast(free[-1].step), _TINY) / max(free[-1].value, _TINY)
    best = min((t for t in free if t.value <= target), key=_preference(slope), default=None)
    tries = [min(free, key=lambda t: _distance(t, aim))]
    like = tries[0].step
    for left in reversed(range(_MOST_PASSES - _FREE)):
        if best is not None and best.value >= target * (1 - _TOLERANCE):
            break
        near = sorted(tries, key=lambda t: _distance(t, aim))[:2]
        apart = math.log(near[0].step / near[-1].step)
        if abs(apart) > 1e-6:
            found = math.log(max(near[0].value, _TINY) / max(near[1].value, _TINY)) / apart
            slope = found if 0.2 < found / slope < 5 else slope
        # Whoever has nothing yet that fits aims lower the longer it takes.
        goal = aim * (1.0 if best is not None or left else 0.9)
        ratio = (goal / max(near[0].value, goal / 100)) ** (1 / slope)
        step = min(max(near[0].step * ratio, steps[0]), steps[1])
        # Far from it, views and ranks of another step would cost more than they smooth.
        tries.append(tried(step, like if like / _FAR < step < like * _FAR else None))
        if tries[-1].value <= target:
            best = min((t for t in (best, tries[-1]) if t), key=_preference(slope))
    apart = 1.03
    while best is None:
        coarser = tries[-1].step * (1 / apart if slope > 0 else apart)
        ended = not steps[0] < coarser < steps[1]
        close = like / _FAR < coarser < like * _FAR
        tries.append(tried(min(max(coarser, steps[0]), steps[1]), like if close else None))
        apart *= apart
        best = tries[-1] if tries[-1].value <= target or ended else None
    if slope < 0 and best.value > target:
        raise ConfigError(
            f"target_bytes is {target}; an update of this model takes {best.value:.0f} bytes "
            "with nothing in it"
        )
    return [best, *(t for t in [*free, *tries] if t is not best)]


def _preference(slope: float) -> Callable[[Try], tuple[int, float]]:
    """Return what sorts tries, the best first: of an error, the fewest bytes; of bytes, the most.

    The fewest bytes need not have the largest error, where ranks change between steps.
    """
    return lambda one: (sum(map(len, one.bodies)) if slope > 0 else 0, -one.value)


def _distance(one: Try, aim: float) -> float:
    return abs(math.log(max(one.value, _TINY) / aim))


def _solve(forecast: Callable[[float], float], value: float, steps: tuple[float, float]) -> float:
    """Return the step with this forecast, by bisection: forecasts grow or fall with the step."""
    low, high = math.log(steps[0]), math.log(steps[1])
    rising = forecast(steps[1]) > forecast(steps[0])
    while high - low > 1e-3:
        middle = (low + high) / 2
        if (forecast(math.exp(middle)) < value) == rising:
            low = middle
        else:
            high = middle
    return math.exp((low + high) / 2)


def bracket(largest: float, size: int) -> tuple[float, float]:
    """Return steps beyond which nothing changes: as fine as float32, and nothing left.

    ``largest`` is the largest magnitude of an update of ``size`` elements.
    """
    low = max(largest * 2.0**-22, 64 * SMALLEST_STEP)
    return low, max(min(2 * largest * math.sqrt(size), LARGEST_STEP), 2 * low)
