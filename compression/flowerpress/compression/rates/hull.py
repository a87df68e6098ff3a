"""Lower convex hulls of points, and what all allocators share: weights, sums and checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.errors import ConfigError
from flowerpress.compression.kernels.allocate import hulls
from flowerpress.compression.rates.points import Points

__all__ = ["Hulls", "Weights", "factors", "lower_hulls", "total", "usable"]

Weights = Mapping[str, float] | NDArray[np.float64] | None
"""How much the squared error of each tensor counts: by name (1 if missing), or an array (T,)."""

Choice = NDArray[np.int64]


@dataclass(frozen=True)
class Hulls:
    """The lower convex hull of each row's points.

    Attributes:
        vertices: (T, S) int64, columns from the cheapest to the best.
        counts: (T,) int64, how many of them.
        tensor, step: (N,) int64, all steps from a vertex to the next one, that which gains most
            for its cost first; step k of a row leads to its vertex k + 1.
        prices: (N,) float64, what each costs.
    """

    vertices: NDArray[np.int64]
    counts: NDArray[np.int64]
    tensor: NDArray[np.int64]
    step: NDArray[np.int64]
    prices: NDArray[np.float64]

    def cheapest(self) -> Choice:
        """Return the first vertex of each row, (T,)."""
        return self.vertices[:, 0].copy()

    def after(self, steps: int) -> Choice:
        """Return the choice (T,) after the first ``steps`` steps."""
        taken = np.bincount(self.tensor[:steps], minlength=len(self.counts))
        return self.vertices[np.arange(len(taken)), taken]


def lower_hulls(costs: NDArray[np.float64], values: NDArray[np.float64]) -> Hulls:
    """Return the lower convex hulls of T rows of S points.

    Along a hull each further unit of cost lowers the value by less than the one before, so taking
    steps of all rows in the order of what they gain for their cost is optimal for every budget
    that one of them exhausts (Shoham and Gersho, IEEE Trans. ASSP 1988).

    Args:
        costs, values: (T, S), both infinite where there is no point.
    """
    vertices = np.zeros(costs.shape, np.int64)
    counts = np.zeros(len(costs), np.int64)
    hulls(np.ascontiguousarray(costs), np.ascontiguousarray(values), vertices, counts)
    own_costs = np.take_along_axis(costs, vertices, axis=1)
    own_values = np.take_along_axis(values, vertices, axis=1)
    there = np.arange(1, costs.shape[1])[None, :] < counts[:, None]
    prices = np.diff(own_costs, axis=1)[there]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        rates = -np.diff(own_values, axis=1) / np.diff(own_costs, axis=1)
    # A hull's slopes fall; rounding must not turn two of them around.
    rates = np.minimum.accumulate(np.where(there, rates, 0.0), axis=1)[there]
    tensor, step = np.nonzero(there)
    order = np.argsort(-rates, kind="stable")
    return Hulls(vertices, counts, tensor[order], step[order], prices[order])


def factors(points: Points, weights: Weights) -> NDArray[np.float64]:
    """Return how much the squared error of each tensor counts, (T,).

    A block of rows such as ``fc.weight[0:64]`` counts as ``fc.weight`` does.

    Raises:
        ConfigError: a weight that is not positive and finite, or another number of them.
    """
    if weights is None:
        return np.ones(len(points.names))
    if isinstance(weights, Mapping):
        found = [weights.get(n, weights.get(n.rpartition("[")[0], 1.0)) for n in points.names]
        out = np.array(found, np.float64)
    else:
        out = np.asarray(weights, np.float64)
    if out.shape != (len(points.names),):
        raise ConfigError(f"{out.size} weights for {len(points.names)} tensors")
    for name, weight in zip(points.names, out, strict=True):
        if not 0 < weight < np.inf:
            raise ConfigError(f"the weight of {name!r} is {weight}; it must be positive")
    return out


def usable(points: Points) -> None:
    """Refuse points of which no choice can be made.

    Raises:
        ConfigError: a tensor that no setting of the menu can code.
    """
    lost = [n for n, row in zip(points.names, points.bytes, strict=True) if np.isinf(row).all()]
    if lost:
        raise ConfigError(
            f"no setting of the menu can code {', '.join(lost)}; add one that does, such as 'none'"
        )


def total(values: NDArray[np.float64], choice: Choice) -> float:
    """Return the sum over rows of (T, S) at the columns ``choice`` (T,)."""
    return float(values[np.arange(len(values)), choice].sum())
