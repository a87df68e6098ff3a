"""Order-0 models for rANS: from counts to 12-bit frequencies, to bytes and back.

A frequency is written as its bit length (a level) and as many of the bits below the leading one
as pay for themselves. Both ends then build the same table from what was written: the middle of
each frequency's interval, normalized to 4096 by integers only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.coders.base import Symbols
from flowerpress.compression.coders.table import read_levels, write_levels
from flowerpress.compression.errors import FormatError
from flowerpress.compression.kernels import rans

__all__ = ["KEPT", "Model", "model_of", "read_model"]

KEPT = (0, 1, 2, 3, 4, 6, 8, 11)
"""Bits below the leading one that a table may keep of every frequency, by index on the wire."""

_COST = np.zeros(rans.TOTAL + 1)
_COST[1:] = rans.PRECISION - np.log2(np.arange(1, rans.TOTAL + 1))


@dataclass(frozen=True)
class Model:
    """Frequencies (tokens,) int64 with sum 4096, their bytes, and the code length in bits."""

    frequencies: NDArray[np.int64]
    kept: int
    table: bytes
    bits: float

    def encoder_tables(self) -> tuple[NDArray[np.uint64], NDArray[np.uint32]]:
        """Reciprocals and packed entries, for the encoding kernel."""
        f = self.frequencies
        reciprocals = (1 << 44) // np.maximum(f, 1) + 1
        reciprocals[f == rans.TOTAL] = 1 << 32
        starts = (np.cumsum(f) - f) & (rans.TOTAL - 1)
        packed = (f << rans.PRECISION) | starts
        return reciprocals.astype(np.uint64), packed.astype(np.uint32)

    def decoder_tables(
        self, dtype: np.dtype[np.unsignedinteger]
    ) -> tuple[NDArray[np.uint32], Symbols]:
        """Entries and symbols of all 4096 slots, for the decoding kernel."""
        f = self.frequencies
        owner = np.repeat(np.arange(f.size), f)
        starts = np.cumsum(f) - f
        entries = (f[owner] << rans.PRECISION) | (np.arange(rans.TOTAL) - starts[owner])
        return entries.astype(np.uint32), owner.astype(dtype)


def model_of(counts: NDArray[np.int64]) -> Model:
    """Return the model with the smallest sum of table and code length for these counts."""
    exact = np.empty_like(counts)
    rans.normalize(counts, exact)
    levels = np.frexp(exact)[1].astype(np.int64)
    levels_list = levels.tolist()
    nothing = [0] * len(levels_list)
    plain = write_levels(levels_list, nothing, 0)[1]
    best: tuple[float, int, NDArray[np.int64], NDArray[np.int64]] | None = None
    for index, kept in enumerate(KEPT):
        sizes = np.minimum(kept, np.maximum(levels - 1, 0))
        extras = (exact >> np.maximum(levels - 1 - sizes, 0)) & ((1 << sizes) - 1)
        frequencies = _rebuild(levels, extras, kept)
        bits = float(counts @ _COST[frequencies])
        total = bits + plain + float(sizes.sum())
        if best is None or total < best[0]:
            best = (total, index, frequencies, extras)
    assert best is not None
    _, index, frequencies, extras = best
    table, _ = write_levels(levels_list, extras.tolist(), KEPT[index])
    return Model(frequencies, index, table, float(counts @ _COST[frequencies]))


def read_model(data: memoryview, tokens: int, kept: int, field: str) -> tuple[Model, int]:
    """Read a model for ``tokens`` tokens; return it and the number of bytes that it took."""
    levels, extras, size = read_levels(data, tokens, KEPT[kept], field)
    if max(levels) > rans.PRECISION + 1:
        raise FormatError(field, f"has a frequency of {max(levels)} bits")
    frequencies = _rebuild(np.array(levels), np.array(extras), KEPT[kept])
    return Model(frequencies, kept, bytes(data[:size]), 0.0), size


def _rebuild(levels: NDArray[np.int64], extras: NDArray[np.int64], kept: int) -> NDArray[np.int64]:
    """What both ends make of a table: interval middles, normalized."""
    sizes = np.minimum(kept, np.maximum(levels - 1, 0))
    dropped = np.maximum(levels - 1 - sizes, 0)
    weights = (((1 << sizes) | extras) << dropped) + ((1 << dropped) >> 1)
    weights[levels == 0] = 0
    frequencies = np.empty_like(weights)
    rans.normalize(weights, frequencies)
    return frequencies
