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
from flowerpress.compression.kernels import rans, tables

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
    lengths = np.frexp(exact)[1].astype(np.int64)
    lengths_below = np.maximum(lengths - 1, 0)
    best: tuple[float, float, int, NDArray[np.int64], NDArray[np.int64]] | None = None
    for index, kept in enumerate(KEPT):
        sizes = np.minimum(kept, lengths_below)
        extras = (exact >> (lengths_below - sizes)) & ((1 << sizes) - 1)
        frequencies = _rebuild(lengths, extras, kept)
        bits = float(counts @ _COST[frequencies])
        total = bits + float(sizes.sum())  # the rest of the table is the same for all
        if best is None or total < best[0]:
            best = (total, bits, index, frequencies, extras)
    assert best is not None
    _, bits, index, frequencies, extras = best
    return Model(frequencies, index, write_levels(lengths, extras, KEPT[index]), bits)


def read_model(data: memoryview, tokens: int, kept: int, field: str) -> tuple[Model, int]:
    """Read a model for ``tokens`` tokens; return it and the number of bytes that it took."""
    lengths, extras, size = read_levels(data, tokens, KEPT[kept], field)
    longest = int(lengths.max())
    if longest > rans.PRECISION + 1:
        raise FormatError(field, f"has a frequency of {longest} bits")
    frequencies = _rebuild(lengths, extras, KEPT[kept])
    return Model(frequencies, kept, bytes(data[:size]), 0.0), size


def _rebuild(lengths: NDArray[np.int64], extras: NDArray[np.int64], kept: int) -> NDArray[np.int64]:
    """What both ends make of a table: interval middles, normalized."""
    weights, frequencies = np.empty((2, lengths.size), np.int64)
    tables.rebuild(lengths, extras, kept, weights)
    rans.normalize(weights, frequencies)
    return frequencies
