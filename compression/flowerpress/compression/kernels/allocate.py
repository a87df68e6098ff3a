"""Loops of the allocators: convex hulls, filling up a budget, a knapsack's table."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.kernels.jit import jit

__all__ = ["exchange", "fill", "hulls", "program"]


@jit
def hulls(
    costs: NDArray[np.float64],
    values: NDArray[np.float64],
    vertices: NDArray[np.int64],
    counts: NDArray[np.int64],
) -> None:
    """Write the lower convex hull of each row's points (cost, value), cheapest first.

    Only the part along which the value falls. ``costs`` and ``values`` (T, S) are finite or, both,
    infinite. ``vertices`` (T, S) gets columns, ``counts`` (T,) how many.
    """
    t, s = costs.shape
    order = np.empty(s, np.int64)
    for i in range(t):
        n = 0
        for j in range(s):
            if not np.isfinite(costs[i, j]):
                continue
            k = n
            while k > 0 and (
                costs[i, order[k - 1]] > costs[i, j]
                or (
                    costs[i, order[k - 1]] == costs[i, j] and values[i, order[k - 1]] > values[i, j]
                )
            ):
                order[k] = order[k - 1]
                k -= 1
            order[k] = j
            n += 1
        top = 0
        for k in range(n):
            j = order[k]
            if top > 0 and values[i, j] >= values[i, vertices[i, top - 1]]:
                continue
            while top > 1:
                a = vertices[i, top - 2]
                b = vertices[i, top - 1]
                left = (values[i, a] - values[i, b]) * (costs[i, j] - costs[i, a])
                right = (values[i, a] - values[i, j]) * (costs[i, b] - costs[i, a])
                if left > right:
                    break
                top -= 1
            vertices[i, top] = j
            top += 1
        counts[i] = top


@jit
def _best_step(
    costs: NDArray[np.float64],
    values: NDArray[np.float64],
    at: int,
    left: float,
) -> tuple[int, float]:
    """Return the column of a row to go to from ``at``, or -1, and what it gains for its cost."""
    found = -1
    most = 0.0
    for j in range(costs.size):
        gain = values[at] - values[j]
        price = costs[j] - costs[at]
        if gain <= 0 or not price <= left:
            continue
        rate = gain / price if price > 0 else np.inf
        if rate > most or (rate == most and found >= 0 and values[j] < values[found]):
            found, most = j, rate
    return found, most


@jit
def fill(
    costs: NDArray[np.float64],
    values: NDArray[np.float64],
    choice: NDArray[np.int64],
    left: float,
) -> float:
    """Improve ``choice`` (T,) in place by single steps that fit into ``left``; return the rest.

    Whichever lowers the value most for its cost comes first, until no step fits.
    """
    t = costs.shape[0]
    best = np.empty(t, np.int64)
    rate = np.empty(t)
    for i in range(t):
        best[i], rate[i] = _best_step(costs[i], values[i], choice[i], left)
    while True:
        i = -1
        for k in range(t):
            if best[k] >= 0 and (i < 0 or rate[k] > rate[i]):
                i = k
        if i < 0:
            return left
        price = costs[i, best[i]] - costs[i, choice[i]]
        if price <= left:
            choice[i] = best[i]
            left -= price
        best[i], rate[i] = _best_step(costs[i], values[i], choice[i], left)


@jit
def _pay(
    costs: NDArray[np.float64],
    values: NDArray[np.float64],
    choice: NDArray[np.int64],
    due: float,
    kept: int,
) -> float:
    """Take cheaper columns in all rows but ``kept`` until ``due`` is saved; return what is not.

    Whichever saves most for what it adds to the value comes first.
    """
    t, s = costs.shape
    while due > 0:
        up, to = -1, -1
        most = 0.0
        for k in range(t):
            if k == kept:
                continue
            for m in range(s):
                saved = costs[k, choice[k]] - costs[k, m]
                if not saved > 0:
                    continue
                lost = values[k, m] - values[k, choice[k]]
                rate = min(saved, due) / lost if lost > 0 else np.inf
                if rate > most:
                    up, to, most = k, m, rate
        if up < 0:
            return due
        due -= costs[up, choice[up]] - costs[up, to]
        choice[up] = to
    return due


@jit
def exchange(
    costs: NDArray[np.float64],
    values: NDArray[np.float64],
    choice: NDArray[np.int64],
    left: float,
) -> float:
    """Improve ``choice`` in place by steps that do not fit, where other rows can pay for them.

    Tries every better column of every row once; what is left then is spent by ``fill``. Returns
    the rest of the budget.
    """
    t, s = costs.shape
    for i in range(t):
        for j in range(s):
            if not values[i, j] < values[i, choice[i]]:
                continue
            trial = choice.copy()
            trial[i] = j
            due = costs[i, j] - costs[i, choice[i]] - left
            if due > 0:
                due = _pay(costs, values, trial, due, i)
            if due > 0:
                continue
            rest = fill(costs, values, trial, -due)
            change = 0.0
            for k in range(t):
                change += values[k, trial[k]] - values[k, choice[k]]
            if change < 0:
                choice[:] = trial
                left = rest
    return left


@jit
def program(
    sizes: NDArray[np.float64],
    buckets: NDArray[np.int64],
    best: NDArray[np.float64],
    back: NDArray[np.uint8],
) -> None:
    """Write the least total size for every error, and the last choice that leads there.

    ``sizes`` and ``buckets`` (T, S): what a choice takes of either; buckets below zero are no
    choice. ``best`` (D + 1,): least size of all rows with at most so many buckets. ``back``
    (T, D + 1): the column of each row in it.
    """
    t, s = sizes.shape
    most = best.size
    before = np.zeros(most)
    for i in range(t):
        best[:] = np.inf
        for j in range(s):
            b = buckets[i, j]
            if b < 0:
                continue
            size = sizes[i, j]
            for e in range(b, most):
                total = before[e - b] + size
                if total < best[e]:
                    best[e] = total
                    back[i, e] = j
        before[:] = best
