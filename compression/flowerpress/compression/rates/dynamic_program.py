"""L-GreCo's allocator: a knapsack over all tensors, with errors in small steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.errors import ConfigError, UnknownNameError
from flowerpress.compression.kernels.allocate import fill, program
from flowerpress.compression.rates.hull import Choice, Weights, factors, total, usable
from flowerpress.compression.rates.points import Points

__all__ = ["ERRORS", "dynamic_program", "losses"]

ERRORS = ("norm", "squared")
"""How errors of tensors add up: as norms, as in the paper, or as squares."""

_PASSES = 3
_MOST_SETTINGS = 256

Array = NDArray[np.float64]


def dynamic_program(
    points: Points,
    weights: Weights = None,
    *,
    target_bytes: float | None = None,
    max_error: float | None = None,
    error: str = "norm",
    buckets: int = 10_000,
) -> Choice:
    """Return the setting of each tensor, (T,) indices: fewest bytes for an error, or the reverse.

    Algorithm 1 of L-GreCo (Markov et al., MLSys 2024): errors become multiples of ``max_error /
    buckets``, and a table says for every tensor and every sum of errors how few bytes lead there.
    In the paper the error of a tensor is ``||x - x^||``, not squared, and ``max_error`` the sum of
    these over all tensors with one setting for all. Different here: errors count from the least
    that each tensor can have and are rounded up, so that ``max_error`` is never exceeded, and what
    rounding left over is given to single tensors afterwards.

    Args:
        points: what settings cost.
        weights: how much the squared error of each tensor counts.
        target_bytes: of all bodies together; the least error that the table has for them. Or
        max_error: of the errors together, as ``losses`` adds them.
        error: one of ``ERRORS``.
        buckets: steps of the error, at least 1.

    Raises:
        ConfigError: not exactly one budget, or one that even the extreme choice exceeds; a tensor
            that no setting can code; a bad weight.
    """
    usable(points)
    if (target_bytes is None) == (max_error is None):
        raise ConfigError("give exactly one of target_bytes and max_error")
    if buckets < 1 or len(points.settings) > _MOST_SETTINGS:
        raise ConfigError(f"a table of {buckets} buckets and {len(points.settings)} settings")
    lost = losses(points, weights, error)
    if max_error is not None:
        return _fewest(points.bytes, lost, max_error, buckets)
    assert target_bytes is not None
    least = total(points.bytes, points.bytes.argmin(axis=1))
    if not least <= target_bytes:
        raise ConfigError(
            f"a budget of {target_bytes:.6g} bytes: the menu takes at least {least:.6g}; "
            "raise it, or choose another menu"
        )

    def fits(choice: Choice) -> bool:
        return total(points.bytes, choice) <= target_bytes

    choice = _least_error(points.bytes, lost, buckets, fits)
    fill(points.bytes, lost, choice, target_bytes - total(points.bytes, choice))
    return choice


def losses(points: Points, weights: Weights, error: str) -> Array:
    """Return (T, S) errors that may be added up: ``w e`` for squared ones, else ``sqrt(w e)``.

    Raises:
        UnknownNameError: ``error`` is none of ``ERRORS``.
        ConfigError: a bad weight.
    """
    if error not in ERRORS:
        raise UnknownNameError("error", error, ERRORS)
    squared = points.errors * factors(points, weights)[:, None]
    return squared if error == "squared" else np.sqrt(squared)


@dataclass(frozen=True)
class _Table:
    """``best`` (D + 1,): fewest bytes by error; ``back`` (T, D + 1): the choices behind them."""

    best: Array
    back: NDArray[np.uint8]
    buckets: NDArray[np.int64]

    @classmethod
    def of(cls, sizes: Array, lost: Array, budget: float, buckets: int) -> _Table:
        least = lost.min(axis=1)
        spare = max(budget - float(least.sum()), 0.0)
        more = lost - least[:, None]
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            steps = np.where(more > 0, np.ceil(more / spare * buckets), 0.0)
        own = np.where(steps <= buckets, steps, -1.0).astype(np.int64)
        best = np.empty(buckets + 1)
        back = np.zeros((len(sizes), buckets + 1), np.uint8)
        program(sizes, own, best, back)
        return cls(best, back, own)

    def choice(self, error: int) -> Choice:
        """Return what leads to the fewest bytes within ``error`` buckets."""
        out = np.empty(len(self.back), np.int64)
        for row in range(len(self.back) - 1, -1, -1):
            out[row] = self.back[row, error]
            error -= int(self.buckets[row, out[row]])
        return out


def _fewest(sizes: Array, lost: Array, budget: float, buckets: int) -> Choice:
    """Return the choice of fewest bytes with errors of at most ``budget`` together."""
    least = lost.argmin(axis=1)
    if not total(lost, least) <= budget:
        raise ConfigError(
            f"an error of {budget:.3g}: the menu has at least {total(lost, least):.3g}; "
            "allow more, or choose another menu"
        )
    found = [least, _Table.of(sizes, lost, budget, buckets).choice(buckets)]
    # One setting for all loses nothing to rounding.
    same = [np.full(len(lost), j) for j in range(lost.shape[1])]
    same = [choice for choice in same if total(lost, choice) <= budget]
    found += sorted(same, key=lambda choice: total(sizes, choice))[:1]
    found = [choice for choice in found if total(lost, choice) <= budget]
    for choice in found:
        fill(lost, sizes, choice, budget - total(lost, choice))
    return min(found, key=lambda choice: total(sizes, choice))


def _least_error(sizes: Array, lost: Array, buckets: int, fits: Callable[[Choice], bool]) -> Choice:
    """Return the choice of least error in the table that fits, looked for ever more finely."""
    found: Choice = sizes.argmin(axis=1)
    for _ in range(_PASSES):
        budget = total(lost, found)
        table = _Table.of(sizes, lost, budget * (1 + 2 * len(lost) / buckets), buckets)
        low, high = 0, buckets
        while low < high:
            middle = (low + high) // 2
            if fits(table.choice(middle)):
                high = middle
            else:
                low = middle + 1
        choice = table.choice(high)
        if not fits(choice) or total(lost, choice) >= budget:
            break
        found = choice
    return found
