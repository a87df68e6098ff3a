"""How much each class counts: what a user writes, and the weighted mean of a loss."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.errors import ConfigError, UnknownNameError
from flowerpress.simulations.tasks.base import Samples

__all__ = ["example_weights", "read_class_weights"]


def read_class_weights(text: str | None, classes: Sequence[str]) -> NDArray[np.float64]:
    """Return a weight for each class, float64 (C,), from ``"3=5,8=2"``; 1 where nothing is said.

    A class is given by its name, or by its position where no class is called so.

    Raises:
        UnknownNameError: no such class.
        ConfigError: not of that form, a class given twice, or a weight that is no positive number.
    """
    weights = np.ones(len(classes))
    given: set[int] = set()
    for part in filter(None, (part.strip() for part in (text or "").split(","))):
        name, _, value = (piece.strip() for piece in part.rpartition("="))
        if not name or not re.fullmatch(r"(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", value.lower()):
            raise ConfigError(f"class weights: {part!r} is not CLASS=WEIGHT, such as 3=5")
        at = _class(name, classes)
        if at in given:
            raise ConfigError(f"class weights: class {name!r} is given twice")
        weights[at] = float(value)
        given.add(at)
        if not 0 < weights[at] < math.inf:
            raise ConfigError(f"class weights: {part!r}: a weight must be above 0 and finite")
    return weights


def example_weights(samples: Samples, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the weight of each example, float64 (N,), by its class; their mean is 1.

    Raises:
        ConfigError: weights that differ, for examples that have a label for every step.
    """
    if np.all(weights == weights[0]):
        return np.ones(len(samples))
    if samples.labels.ndim != 1:
        raise ConfigError(
            "class weights need one label for each example; this task has one for every step"
        )
    own = np.asarray(weights[samples.labels.numpy()], np.float64)
    return np.asarray(own / own.mean(), np.float64)


def _class(name: str, classes: Sequence[str]) -> int:
    if name in classes:
        return list(classes).index(name)
    if name.isascii() and name.isdecimal() and int(name) < len(classes):
        return int(name)
    raise UnknownNameError("class", name, classes)
