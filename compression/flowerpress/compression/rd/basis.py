"""Bases that both ends compute from a reference, to the last bit.

The updates of clients lie near the singular vectors of the global update before. Written in these,
factors need fewer bits; nobody sends the vectors. Everything here runs in one order of operations,
without a linear algebra library, since those differ between machines in the last bits.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.kernels.exact import orthonormalize, outer_product
from flowerpress.compression.rd.views import chosen

__all__ = ["DIGEST_BYTES", "Bases", "Reference"]

DIGEST_BYTES = 4
"""So much of a reference's digest travels with a body."""

_VECTORS = 16
_MOST_KEPT = 512

Matrix = NDArray[np.float32]


@dataclass(frozen=True)
class Bases:
    """Orthonormal rows (k, m) and (k, n) near the leading singular vectors of a reference."""

    left: Matrix
    right: Matrix

    @classmethod
    def none(cls, m: int, n: int) -> Bases:
        """Return bases without a vector."""
        return cls(np.zeros((0, m), np.float32), np.zeros((0, n), np.float32))


class Reference:
    """A tensor that both ends hold, and its bases, worked out when they are asked for."""

    def __init__(self, values: Matrix) -> None:
        self.values = values

    @cached_property
    def digest(self) -> bytes:
        """What tells references apart."""
        little = np.ascontiguousarray(self.values, "<f4")
        return hashlib.sha256(little.reshape(-1).view(np.uint8).data).digest()

    def bases(
        self, view: int, rows: NDArray[np.int64] | None, columns: NDArray[np.int64] | None
    ) -> Bases | None:
        """Return the bases of one look at it; None where it says nothing.

        The last few are kept: a server decodes the updates of many clients with one reference.
        """
        key = self.digest + b"|".join(
            [str((self.values.shape, view)).encode()]
            + [b"" if some is None else some.tobytes() for some in (rows, columns)]
        )
        with _lock:
            if key in _kept:
                _kept.move_to_end(key)
                return _kept[key]
        found = _bases(chosen(self.values, view, rows, columns))
        with _lock:
            _kept[key] = found
            while len(_kept) > _MOST_KEPT:
                _kept.popitem(last=False)
        return found


_lock = threading.Lock()
_kept: OrderedDict[bytes, Bases | None] = OrderedDict()


def _bases(reference: Matrix) -> Bases | None:
    """Return the bases of a matrix (m, n).

    Two rounds of subspace iteration from sums of rows (Golub and Van Loan, Matrix Computations,
    section 8.2.4).
    """
    m, n = reference.shape
    k = min(_VECTORS, m, n)
    largest = np.float32(np.abs(reference).max(initial=0))
    if k < 2 or not np.isfinite(largest) or largest < np.float32(1e-30):
        return None
    x = np.ascontiguousarray(reference / largest, np.float32)
    turned = np.ascontiguousarray(x.T)
    right = _sums(x, k)
    left = np.empty((k, m), np.float32)
    for _ in range(2):
        orthonormalize(right)
        outer_product(right, turned, left)
        orthonormalize(left)
        outer_product(left, x, right)
    orthonormalize(right)
    return Bases(left, right)


def _sums(x: Matrix, k: int) -> Matrix:
    """Return ``k`` sums of rows of ``x``, each with signs of its own: a sketch of the rows."""
    signs = _signs(k, len(x))
    out = np.empty((k, x.shape[1]), np.float32)
    outer_product(signs, x, out)
    return out


def _signs(k: int, m: int) -> Matrix:
    """Return a (k, m) matrix of +1 and -1 from a counter and a hash in integers.

    The hash is the finalizer of splitmix64 (Steele, Lea and Flood, OOPSLA 2014).
    """
    with np.errstate(over="ignore"):
        z = (np.arange(k * m, dtype=np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.where(z >> np.uint64(63), np.float32(1), np.float32(-1)).reshape(k, m)
