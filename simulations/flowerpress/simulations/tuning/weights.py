"""From what was measured of a tensor's sensitivity to the weight of its squared error."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["CEILING", "FLOOR", "normalised", "slopes"]

FLOOR, CEILING = 0.01, 100.0
"""No tensor's squared error counts less or more than this times the mean. What was measured on a
few examples is not known better than that, and an allocator must not drop a tensor for noise."""


def normalised(measured: NDArray[np.float64], energies: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return weights, float64 (T,), whose mean weighted by ``energies`` is 1 before clipping.

    So the weighted squared error of sending nothing is the unweighted one, and a weighted error
    reads like an NMSE. Weights are then kept within ``FLOOR`` and ``CEILING``.

    Args:
        measured: sensitivity to a unit of squared error; NaN where it was not measured, which
            counts like the mean. Negative values and zeros end at ``FLOOR``.
        energies: squared norms of the tensors' updates, the weights of the mean.
    """
    known = np.isfinite(measured)
    values = np.where(known, np.maximum(measured, 0.0), 0.0)
    largest = float(values.max(initial=0.0))
    if largest <= 0.0:
        return np.ones(len(measured))
    values = values / largest  # so that no product overflows or vanishes
    own = np.where(known, energies, 0.0)
    total = float(own.sum())
    # Without any energy, all of the measured tensors count alike.
    mean = float(np.dot(values, own) / total) if total > 0 else float(values[known].mean())
    if mean <= 0.0:  # only tensors that did not move are sensitive
        return np.ones(len(measured))
    with np.errstate(over="ignore"):
        return np.where(known, np.clip(values / mean, FLOOR, CEILING), 1.0)


def slopes(changes: NDArray[np.float64], errors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the slope of ``changes`` over ``errors``, (T, K) each, through the origin: (T,).

    Least squares over the finite points of a row; NaN for a row without any, or without error.
    """
    known = np.isfinite(changes) & np.isfinite(errors) & (errors > 0)
    scale = np.where(known, errors, 0.0).max(axis=1, initial=0.0, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        x = np.where(known, errors / scale, 0.0)
        y = np.where(known, changes / scale, 0.0)
        return np.asarray((x * y).sum(1) / (x * x).sum(1), np.float64)
