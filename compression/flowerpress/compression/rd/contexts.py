"""The adaptive model of a plane: what is expected before anything was seen, and what was seen."""

from __future__ import annotations

from functools import cache
from math import isqrt

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.kernels import levels as kernel
from flowerpress.compression.rd.averages import follow, scales

__all__ = ["Model", "expected"]

# Counts per context before the first level; an observed symbol counts 16.
_WEIGHT = 320
_FIRST_CHUNK = 64
# How much likelier the expected sign is, by how sure the neighbours are, in 1/16.
_SIGN = (0, 2, 5)


class Model:
    """Counts and frequencies of all contexts, learned while planes are coded.

    ``row_weight`` (of 16) is the part of the left neighbours in the expected magnitude;
    ``signs`` says whether neighbours' signs are contexts.
    """

    def __init__(self, row_weight: int, *, signs: bool) -> None:
        self.signs = signs
        self.counts = expected().copy()
        self.first = np.zeros(kernel.CONTEXTS * kernel.ROW, np.uint16)
        self.totals = np.zeros(kernel.CONTEXTS, np.int64)
        self.clock = np.array([0, _FIRST_CHUNK], np.int64)
        self.tables = (kernel.TRELLIS, follow(), scales(row_weight))
        kernel.refresh(self.counts, self.first, self.totals)

    def entries(
        self, levels: NDArray[np.int32], low: int, room: NDArray[np.uint32], start: int
    ) -> int:
        """Append the entries of a plane to ``room``; return the end, or -1 if there is no room."""
        return kernel.model_plane(
            levels,
            low,
            self.signs,
            self.counts,
            self.first,
            self.totals,
            self.clock,
            *self.tables,
            room,
            start,
        )

    def decode(
        self,
        words: NDArray[np.uint16],
        states: NDArray[np.uint64],
        cursor: NDArray[np.int64],
        low: int,
        out: NDArray[np.int32],
    ) -> int:
        """Fill ``out`` with points; return a status."""
        return kernel.decode_plane(
            words,
            states,
            cursor,
            low,
            self.signs,
            self.counts,
            self.first,
            self.totals,
            self.clock,
            *self.tables,
            out,
        )


@cache
def expected() -> NDArray[np.uint32]:
    """Return the counts (CONTEXTS * 16,) from which every plane starts, made with integers only.

    Magnitudes of mean mu are two-sided geometric: with t = (sqrt(1 + mu**2) - 1) / mu the level 0
    has (1 - t) / (1 + t) and every further magnitude t times the one before.
    """
    one = 1 << 30
    out = np.zeros((2, kernel.SCALES, kernel.SIGNS, kernel.SYMBOLS), np.uint32)
    for scale in range(kernel.SCALES):
        # The middle of the half-octave, 2**((scale - 1/2) / 2) / 512, in units of 2**-30.
        mean = _power(2 * scale - 1) if scale else one // 2048
        root = isqrt(one * one + mean * mean)
        t = ((root - one) << 30) // mean
        zero = ((one - t) << 30) // (one + t)
        for sure in range(kernel.SIGNS):
            p = zero
            out[:, scale, sure, 0] = _count(zero)
            for magnitude in range(1, 8):
                p = p * t >> 30
                tilt = p * _SIGN[sure] >> 4
                out[:, scale, sure, 2 * magnitude - 1] = _count(p + tilt)
                out[:, scale, sure, 2 * magnitude] = _count(p - tilt)
            rest = ((2 * p * t >> 30) << 30) // max(1, one - t)
            out[:, scale, sure, 15] = _count(rest)
    return out.reshape(-1)


def _count(p: int) -> int:
    return max(1, p * _WEIGHT >> 30)


def _power(quarters: int) -> int:
    """Return 2**(quarters / 4) / 512 in units of 2**-30."""
    whole, part = divmod(quarters, 4)
    root = isqrt(isqrt(1 << (part + 160)))  # 2**(part / 4), 40 binary places
    return root << (21 + whole) >> 40
