"""Allocators that cost nothing: what any other one must beat."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.errors import ConfigError
from flowerpress.compression.rates.hull import Choice, Weights, factors, total, usable
from flowerpress.compression.rates.points import Points

__all__ = ["by_size", "uniform"]


def uniform(
    points: Points,
    weights: Weights = None,
    *,
    target_bytes: float | None = None,
    max_error: float | None = None,
) -> Choice:
    """Return the same setting for all tensors, (T,) equal indices but for what cannot be.

    Of those that fit into ``target_bytes`` the one of least error, or of those within
    ``max_error`` (of the weighted squared errors together) the one of fewest bytes. A tensor that
    it cannot code gets the cheapest setting that can.

    Raises:
        ConfigError: not exactly one budget, or one that no setting meets.
    """
    usable(points)
    costs, values, budget = _sides(points, weights, target_bytes, max_error)
    found: Choice | None = None
    cheapest = points.bytes.argmin(axis=1)
    for column in range(len(points.settings)):
        choice = np.where(np.isfinite(points.bytes[:, column]), column, cheapest)
        fits = total(costs, choice) <= budget
        if fits and (found is None or total(values, choice) < total(values, found)):
            found = choice
    if found is None:
        raise ConfigError(f"no setting of the menu alone meets {_said(target_bytes, max_error)}")
    return found


def by_size(
    points: Points,
    weights: Weights = None,
    *,
    target_bytes: float | None = None,
    max_error: float | None = None,
) -> Choice:
    """Return settings that are harder on larger tensors, (T,) indices.

    The rule: a tensor of n elements may take c * sqrt(n) bytes, so that one a hundred times as
    large has a tenth of the bits, or of the density, an element; it gets the setting of least error
    that takes no more, or its cheapest one. c is the largest that fits ``target_bytes``, or the
    least within ``max_error`` (of the weighted squared errors together). That large layers bear
    more is the observation behind LEGACY; the square root stands between equal bits and equal
    bytes.

    Raises:
        ConfigError: not exactly one budget, or one that the largest or least c does not meet.
    """
    usable(points)
    costs, _, budget = _sides(points, weights, target_bytes, max_error)
    roots = np.sqrt(np.maximum(points.sizes, 1.0))
    # Between two of these nothing changes.
    shares = np.unique(points.bytes / roots[:, None])
    shares = shares[np.isfinite(shares)]
    up = target_bytes is not None
    low, high = 0, len(shares) - 1
    found: Choice | None = None
    while low <= high:
        middle = (low + high) // 2
        choice = _within(points, roots * shares[middle] * (1 + 1e-12))
        fits = total(costs, choice) <= budget
        found = choice if fits else found
        if fits == up:
            low = middle + 1
        else:
            high = middle - 1
    if found is None:
        raise ConfigError(f"the menu by size does not meet {_said(target_bytes, max_error)}")
    return found


def _within(points: Points, allowed: NDArray[np.float64]) -> Choice:
    fits = points.bytes <= allowed[:, None]
    best = np.where(fits, points.errors, np.inf).argmin(axis=1)
    chosen: Choice = np.where(fits.any(axis=1), best, points.bytes.argmin(axis=1))
    return chosen


def _sides(
    points: Points, weights: Weights, target_bytes: float | None, max_error: float | None
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Return what the budget is about, what is then least, and the budget."""
    errors = points.errors * factors(points, weights)[:, None]
    if target_bytes is not None and max_error is None:
        return points.bytes, errors, target_bytes
    if max_error is not None and target_bytes is None:
        return errors, points.bytes, max_error
    raise ConfigError("give exactly one of target_bytes and max_error")


def _said(target_bytes: float | None, max_error: float | None) -> str:
    if target_bytes is not None:
        return f"{target_bytes:.6g} bytes; raise them, or choose another menu"
    return f"an error of {max_error:.3g}; allow more, or choose another menu"
