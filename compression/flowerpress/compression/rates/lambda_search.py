"""The allocator of choice: a walk down the convex hulls of all tensors at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.errors import ConfigError
from flowerpress.compression.kernels.allocate import exchange, fill
from flowerpress.compression.rates.hull import (
    Choice,
    Weights,
    factors,
    lower_hulls,
    total,
    usable,
)
from flowerpress.compression.rates.points import Points

__all__ = ["lambda_search", "spend"]

_FEW = 600  # points: with many, a step is small beside the whole, and exchanges gain nothing
_SWEEPS = 3


def lambda_search(
    points: Points,
    weights: Weights = None,
    *,
    target_bytes: float | None = None,
    max_error: float | None = None,
) -> Choice:
    """Return the setting of each tensor, (T,) indices: least error for bytes, or the reverse.

    For one price of a byte (the Lagrangian's lambda) every tensor takes the vertex of its hull
    where a byte more would gain less; lowering the price moves one tensor at a time by one vertex
    (Shoham and Gersho, IEEE Trans. ASSP 1988). What is left of the budget at the end, less than
    one such step, is spent on single steps that fit, also to points above the hulls. The sum is
    therefore within one step of the best that there is, and no worse than that of any one setting
    for all. Where tensors are so few that a step is much, each step that does not fit is tried,
    too, with the others paying for it.

    Args:
        points: what settings cost.
        weights: how much the squared error of each tensor counts.
        target_bytes: of all bodies together; or
        max_error: of the weighted squared errors together.

    Raises:
        ConfigError: not exactly one of both, or one that even the extreme choice exceeds; a
            tensor that no setting can code; a bad weight.
    """
    usable(points)
    errors = points.errors * factors(points, weights)[:, None]
    if (target_bytes is None) == (max_error is None):
        raise ConfigError("give exactly one of target_bytes and max_error")
    if target_bytes is not None:
        return spend(points.bytes, errors, target_bytes, "bytes")
    assert max_error is not None
    return spend(errors, points.bytes, max_error, "error")


def spend(
    costs: NDArray[np.float64], values: NDArray[np.float64], budget: float, unit: str
) -> Choice:
    """Return a column of each row such that costs stay within ``budget`` and values are least.

    Raises:
        ConfigError: the cheapest choice costs more; ``unit`` says of what.
    """
    hulls = lower_hulls(costs, values)
    least = total(costs, hulls.cheapest())
    if not least <= budget:
        raise ConfigError(
            f"a budget of {budget:.6g} {unit}: the menu takes at least {least:.6g}; "
            "raise it, or choose another menu"
        )
    # Sums in another order differ in their last bits: a little too far, and back by exact ones.
    near = budget * (1 + 1e-9)
    steps = int(np.searchsorted(least + np.cumsum(hulls.prices), near, side="right"))
    while steps and total(costs, hulls.after(steps)) > budget:
        steps -= 1
    found = [hulls.after(steps)]
    # Where few tensors hold most, a budget between two steps may be met better by one for all.
    sums = costs.sum(axis=0)
    if (sums <= budget).any():
        same = int(np.where(sums <= budget, values.sum(axis=0), np.inf).argmin())
        found.append(np.full(len(costs), same))
    costs, values = np.ascontiguousarray(costs), np.ascontiguousarray(values)
    for choice in found:
        _improve(costs, values, choice, budget)
    return min(found, key=lambda choice: total(values, choice))


def _improve(
    costs: NDArray[np.float64], values: NDArray[np.float64], choice: Choice, budget: float
) -> None:
    """Spend what is left, in place; where tensors are few, try steps that others must pay for."""
    fill(costs, values, choice, budget - total(costs, choice))
    if costs.size > _FEW:
        return
    for _ in range(_SWEEPS):
        before = choice.copy()
        exchange(costs, values, choice, budget - total(costs, choice))
        # A change in the last bits is none.
        if total(costs, choice) > budget or total(values, choice) >= total(values, before):
            choice[:] = before
            return
