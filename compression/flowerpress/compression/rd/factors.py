"""The low-rank part of a matrix: how much of it pays, and its two quantized factors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.kernels.exact import outer_product
from flowerpress.compression.rd.basis import Bases
from flowerpress.compression.rd.quantize import points_of, price, quantize

__all__ = [
    "MOST_RANKS",
    "Factors",
    "Sketch",
    "factorize",
    "restore",
    "scaled",
    "sketch",
]

MOST_RANKS = 64

_OVERSAMPLING = 4

Matrix = NDArray[np.float32]


@dataclass(frozen=True)
class Factors:
    """A quantized product.

    ``planes`` are the levels of the left factor (r, m) and of the right one (r, n), each after the
    levels of its coordinates (r, k) in a basis where it is ``based`` on one. Column k of a factor
    is coded times about its singular value; ``exponents`` (r,) has that value's size, 2**(e / 4)
    half steps. ``left`` (r, m) is scaled back, so that the product is ``left.T @ right``, in steps.
    """

    planes: list[NDArray[np.int32]]
    exponents: list[int]
    left: Matrix
    right: Matrix
    based: tuple[bool, bool]


def restore(points: NDArray[np.int32], coordinates: NDArray[np.int32], basis: Matrix) -> Matrix:
    """Return the rows of a factor, in steps, from their points and those of their coordinates.

    ``points`` is (r, n), ``coordinates`` (r, k) and ``basis`` (k, n), k being 0 for none. The same
    bits on every machine.
    """
    half = np.float32(0.5)
    out = np.empty(points.shape, np.float32)
    outer_product(coordinates.astype(np.float32) * half, basis, out)
    return out + points.astype(np.float32) * half


def scaled(rows: Matrix, exponents: list[int]) -> Matrix:
    """Return the left factor's rows without their singular values; the same bits everywhere."""
    quarter = (1.0, 0.8408964152537145, 0.7071067811865476, 0.5946035575013605)
    scale = [2 * quarter[e % 4] * 0.5 ** (e // 4) for e in exponents]  # two half steps: 2**(-e/4)
    return rows * np.array(scale, np.float32)[:, None]


@dataclass(frozen=True)
class Sketch:
    """Singular triples: ``left`` (m, k), ``values`` (k,) decreasing, ``right`` (n, k)."""

    left: Matrix
    values: Matrix
    right: Matrix


def sketch(x: Matrix, rank: int, start: Matrix | None) -> Sketch:
    """Return about the ``rank`` leading singular triples.

    A randomized range finder with one power iteration (Halko, Martinsson and Tropp, SIAM Review
    53(2), 2011, algorithm 4.4). The random matrix is always the same: it decides about nothing but
    how well the factors fit, and they are sent. Rows of ``start`` stand in for random ones.
    """
    m, n = x.shape
    k = min(rank + _OVERSAMPLING, m, n)
    probe = np.random.default_rng(0).standard_normal((n, k), dtype=np.float32)
    if start is not None:
        few = min(k, len(start))
        lengths = np.sqrt((start[:few] ** 2).sum(axis=1, keepdims=True)) + np.float32(1e-30)
        probe[:, :few] = (start[:few] / lengths).T * np.float32(n**0.5)
    basis = _orthonormal(x @ probe)
    basis = _orthonormal(x @ (x.T @ basis))
    core = basis.T @ x
    values, turn = np.linalg.eigh((core @ core.T).astype(np.float64))
    order = np.argsort(values)[::-1][:rank]
    # What is left of a matrix of lower rank is rounding.
    order = order[values[order] > 1e-10 * values.max()]
    values = np.sqrt(values[order]).astype(np.float32)
    turn = turn[:, order].astype(np.float32)
    return Sketch(basis @ turn, values, (core.T @ turn) / values)


def _orthonormal(y: Matrix) -> Matrix:
    """Return a basis of the columns of ``y``, by the Cholesky factor of their inner products."""
    gram = (y.T @ y).astype(np.float64)
    gram += (1e-5 * np.trace(gram) / len(gram) + 1e-30) * np.eye(len(gram))
    inverse = np.linalg.inv(np.linalg.cholesky(gram))
    return y @ inverse.T.astype(np.float32)


def factorize(x: Matrix, parts: Sketch, rank: int, step: float, known: Bases) -> Factors:
    """Quantize the left factor, fit the right one to what that has become, quantize it, too.

    Args:
        x: the matrix (m, n) in steps.
        parts: its singular triples in any unit, of which the first ``rank`` are used.
        rank: at least one.
        step: the whole step in that unit.
        known: the bases in which both factors are looked at first; they may be empty.
    """
    size = np.maximum(2 * parts.values[:rank] / step, 1)
    exponents = [int(e) for e in np.minimum(np.rint(4 * np.log2(size)), 255)]
    # The exponents are sent as steps down, at most 15 each.
    for k in range(1, rank):
        exponents[k] = min(max(exponents[k], exponents[k - 1] - 15), exponents[k - 1])
    scale = np.array([0.5 * 2 ** (e / 4) for e in exponents], np.float32)
    left_planes, left = _quantized(
        np.ascontiguousarray((parts.left[:, :rank] * scale).T), known.left
    )
    left = scaled(left, exponents)
    gram = (left @ left.T).astype(np.float64)
    gram += (1e-6 * np.trace(gram) / rank + 1e-30) * np.eye(rank)
    fitted = np.linalg.solve(gram, (left @ x).astype(np.float64))
    right_planes, right = _quantized(np.ascontiguousarray(fitted, np.float32), known.right)
    based = len(left_planes) > 1, len(right_planes) > 1
    return Factors(left_planes + right_planes, exponents, left, right, based)


def _quantized(rows: Matrix, basis: Matrix) -> tuple[list[NDArray[np.int32]], Matrix]:
    """Return the levels of ``rows`` (r, n), and the rows that they give.

    Where that pays, the levels of their coordinates in ``basis`` (k, n) come first.
    """
    none = np.zeros((len(rows), 0), np.int32)
    if len(basis):
        inside = np.ascontiguousarray(rows @ basis.T)
        outside = (rows - inside @ basis).astype(np.float32, copy=False)
        if _price(inside) + _price(outside) < _price(rows):
            coordinates = quantize(inside)
            points = points_of(coordinates)
            rest = rows - restore(np.zeros(rows.shape, np.int32), points, basis)
            levels = quantize(rest)
            return [coordinates, levels], restore(points_of(levels), points, basis)
    levels = quantize(rows)
    return [levels], restore(points_of(levels), none, np.zeros((0, rows.shape[1]), np.float32))


def _price(rows: Matrix) -> float:
    return float(price(np.abs(rows).mean(axis=1)).sum() * rows.shape[1])
