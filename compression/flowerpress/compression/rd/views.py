"""How a tensor is looked at as a matrix.

The rows of a convolution's matrix are one output channel and one frequency of the kernel, the
columns its input channels: that is where convolutions' updates are closest to low rank, since all
of them are sums over the same input channels. Frequencies, not places: a small cosine transform
over the kernel gathers what its places have in common. It is orthonormal, so that squared errors
stay what they are.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.kernels.cosine import mix

__all__ = [
    "FLAT",
    "KERNEL",
    "PLACES",
    "TURNED",
    "matrix",
    "matrix_shape",
    "possible",
    "tensor",
    "views",
]

FLAT = 0
"""The first axis by all others; one row, or some, for fewer than two axes."""
TURNED = 1
"""The transpose of ``FLAT``: for matrices of few columns."""
PLACES = 2
"""Convolutions: kernel place and output channel by input channel."""
KERNEL = 3
"""Convolutions: kernel frequency and output channel by input channel."""

NARROW = 8
_TALL = 1 << 14
_LARGEST_KERNEL = 11


def views(shape: tuple[int, ...]) -> list[int]:
    """Return the views that may suit a tensor of this shape, the likely one first."""
    rows, columns = matrix_shape(shape, FLAT)
    if len(shape) > 2 and shape[1] >= NARROW and math.prod(shape[2:]) > 1:
        return [KERNEL, FLAT] if max(shape[2:]) <= _LARGEST_KERNEL else [PLACES, FLAT]
    if columns < NARROW < rows:
        return [TURNED]
    return [FLAT]


def possible(shape: tuple[int, ...]) -> set[int]:
    """Return the views that a decoder accepts for a tensor of this shape."""
    out = {FLAT, TURNED}
    if len(shape) > 2:
        out |= {PLACES, KERNEL} if max(shape[2:]) <= _LARGEST_KERNEL else {PLACES}
    return out


def matrix_shape(shape: tuple[int, ...], view: int) -> tuple[int, int]:
    """Return rows and columns of a tensor that is not empty."""
    if len(shape) < 2:
        size = math.prod(shape)
        flat = (_rows(size), size // _rows(size))
    else:
        flat = (shape[0], math.prod(shape[1:]))
    if view in (PLACES, KERNEL):
        return flat[0] * flat[1] // shape[1], shape[1]
    return flat if view == FLAT else flat[::-1]


def _rows(size: int) -> int:
    """Rows for a long vector: they are worked on side by side."""
    if size < _TALL:
        return 1
    return next(rows for rows in (64, 32, 16, 8, 4, 2, 1) if size % rows == 0)


def matrix(x: NDArray[np.float32], view: int) -> NDArray[np.float32]:
    """Return ``x`` as a matrix, C contiguous."""
    rows, columns = matrix_shape(x.shape, view)
    if view in (PLACES, KERNEL):
        places = np.ascontiguousarray(np.moveaxis(x, (0, 1), (-2, -1))).reshape(rows, columns)
        if view == KERNEL:
            for axis, extent in enumerate(x.shape[2:]):
                places = _transform(places, x.shape, axis, _cosine(extent))
        return places
    if view == TURNED:
        return np.ascontiguousarray(x.reshape(columns, rows).T)
    return np.ascontiguousarray(x).reshape(rows, columns)


def chosen(
    x: NDArray[np.float32],
    view: int,
    rows: NDArray[np.int64] | None,
    columns: NDArray[np.int64] | None,
) -> NDArray[np.float32]:
    """Return some rows and columns, None for all, of ``x`` as a matrix."""
    out = matrix(x, view)
    if rows is not None:
        out = out[rows]
    return out if columns is None else np.ascontiguousarray(out[:, columns])


def tensor(values: NDArray[np.float32], shape: tuple[int, ...], view: int) -> NDArray[np.float32]:
    """Return the elements of a matrix in the order of the tensor, flat: undoes ``matrix``.

    The same bits on every machine.
    """
    if view in (PLACES, KERNEL):
        if view == KERNEL:
            for axis, extent in enumerate(shape[2:]):
                values = _transform(values, shape, axis, _cosine(extent).T)
        places = values.reshape(*shape[2:], *shape[:2])
        return np.ascontiguousarray(np.moveaxis(places, (-2, -1), (0, 1))).reshape(-1)
    if view == TURNED:
        return np.ascontiguousarray(values.T).reshape(-1)
    return values.reshape(-1)


def _transform(
    values: NDArray[np.float32],
    shape: tuple[int, ...],
    axis: int,
    weights: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Return ``values`` with one of the kernel's axes, which come first, multiplied."""
    extent = shape[2 + axis]
    if extent == 1:
        return values
    before = math.prod(shape[2 : 2 + axis])
    out = np.empty_like(values)
    mix(
        values.reshape(before, extent, -1),
        np.ascontiguousarray(weights),
        out.reshape(before, extent, -1),
    )
    return out


@cache
def _cosine(n: int) -> NDArray[np.float32]:
    """Return the orthonormal cosine transform of size ``n`` (Ahmed, Natarajan and Rao, 1974).

    Rounded to 20 bits after the point, so that it is the same on every machine.
    """
    k, place = np.arange(n)[:, None], np.arange(n)[None, :]
    weights = np.cos(np.pi * (2 * place + 1) * k / (2 * n)) * math.sqrt(2 / n)
    weights[0] /= math.sqrt(2)
    return (np.rint(weights * (1 << 20)) / (1 << 20)).astype(np.float32)
