"""What each setting costs on each tensor: the numbers that allocators choose by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.errors import ConfigError

__all__ = ["Points", "joined", "mean", "median"]


@dataclass(frozen=True)
class Points:
    """What each setting of a menu costs on each tensor, measured by coding it.

    T tensors and S settings. ``bytes`` and ``errors`` are infinite where a setting cannot code a
    tensor.

    Attributes:
        names: of the tensors, in manifest order; only floating-point ones.
        settings: codec texts.
        bytes: (T, S) float64, length of the body.
        errors: (T, S) float64, squared error ``||x - x^||**2``.
        energies: (T,) float64, ``||x||**2``.
        sizes: (T,) int64, elements.

    Raises:
        ConfigError: shapes that do not fit the names and settings, negative values or NaN, or a
            value that is infinite in one array only.
    """

    names: tuple[str, ...]
    settings: tuple[str, ...]
    bytes: NDArray[np.float64]
    errors: NDArray[np.float64]
    energies: NDArray[np.float64]
    sizes: NDArray[np.int64]

    def __post_init__(self) -> None:
        t, s = len(self.names), len(self.settings)
        for field, shape, dtype in (
            ("bytes", (t, s), np.float64),
            ("errors", (t, s), np.float64),
            ("energies", (t,), np.float64),
            ("sizes", (t,), np.int64),
        ):
            array = np.array(getattr(self, field), dtype)
            _check(field, array, shape)
            array.setflags(write=False)
            object.__setattr__(self, field, array)
        for kind, texts in (("tensor", self.names), ("setting", self.settings)):
            twice = sorted({text for text in texts if texts.count(text) > 1})
            if twice:
                raise ConfigError(f"points: {kind} given twice: {', '.join(twice)}")
        if not np.array_equal(np.isfinite(self.bytes), np.isfinite(self.errors)):
            raise ConfigError("points: bytes and errors must be infinite in the same places")
        if not np.isfinite(self.energies).all():
            raise ConfigError("points: energies must be finite")

    def of(self, names: Sequence[str]) -> Points:
        """Return the points of some of the tensors, in the order of ``names``.

        Raises:
            ConfigError: a name that is not among them.
        """
        place = {name: i for i, name in enumerate(self.names)}
        if missing := [name for name in names if name not in place]:
            raise ConfigError(f"points: nothing was measured for {', '.join(missing)}")
        rows = np.array([place[name] for name in names], np.int64)
        return Points(
            tuple(names),
            self.settings,
            self.bytes[rows],
            self.errors[rows],
            self.energies[rows],
            self.sizes[rows],
        )

    def chosen(self, choice: NDArray[np.int64]) -> tuple[float, float]:
        """Return the bytes of all bodies and the NMSE of a choice, (T,) indices of settings.

        The NMSE is the squared error over the energy, of all tensors together; 0 without energy.
        """
        rows = np.arange(len(self.names))
        energy = float(self.energies.sum())
        lost = float(self.errors[rows, choice].sum())
        return float(self.bytes[rows, choice].sum()), lost / energy if energy else 0.0


def mean(parts: Sequence[Points]) -> Points:
    """Return the mean over updates of several clients or rounds; infinite where one of them is.

    Raises:
        ConfigError: none, or points of other tensors or settings.
    """
    return _over(parts, lambda arrays: np.asarray(np.add.reduce(arrays) / len(arrays)))


def median(parts: Sequence[Points]) -> Points:
    """Return the median of each number: a minority that measures nonsense hardly moves it.

    Raises:
        ConfigError: none, or points of other tensors or settings.
    """
    return _over(parts, lambda arrays: np.asarray(np.median(arrays, axis=0)))


def joined(parts: Sequence[Points]) -> Points:
    """Return the points of other tensors each, as those of all, in this order.

    Raises:
        ConfigError: none, other settings, or a tensor given twice.
    """
    if len({each.settings for each in parts}) != 1:
        raise ConfigError("points: those of other settings cannot be put together")
    return Points(
        tuple(name for each in parts for name in each.names),
        parts[0].settings,
        np.concatenate([each.bytes for each in parts]),
        np.concatenate([each.errors for each in parts]),
        np.concatenate([each.energies for each in parts]),
        np.concatenate([each.sizes for each in parts]),
    )


def _over(
    parts: Sequence[Points],
    reduced: Callable[[list[NDArray[np.float64]]], NDArray[np.float64]],
) -> Points:
    if not parts:
        raise ConfigError("points: there are none to be averaged")
    first = parts[0]
    for other in parts[1:]:
        if other.names != first.names or other.settings != first.settings:
            raise ConfigError("points: those of other tensors or settings cannot be averaged")
        if not np.array_equal(other.sizes, first.sizes):
            raise ConfigError("points: tensors of other sizes cannot be averaged")
    return Points(
        first.names,
        first.settings,
        reduced([each.bytes for each in parts]),
        reduced([each.errors for each in parts]),
        reduced([each.energies for each in parts]),
        first.sizes,
    )


def _check(field: str, array: NDArray[Any], shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise ConfigError(f"points: {field} has shape {array.shape}; it must be {shape}")
    if not (array >= 0).all():
        raise ConfigError(f"points: {field} must be 0 or more, and no NaN")
