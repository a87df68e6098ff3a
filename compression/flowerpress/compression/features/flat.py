"""Frequencies of all channels in a row, as kernels take them."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.features.apportion import TOTAL
from flowerpress.compression.kernels import features as kernel

__all__ = ["Flat"]

_UP = 1.0 + 2.0**-51


class Flat:
    """What the kernels derive from frequencies: 32 bytes a symbol and 2 kB a channel at most.

    ``lows`` (C,) int32; ``offsets`` (C + 1,) int64: where each channel's symbols start;
    ``frequencies``, ``starts`` (running sums within the channel) int64 and ``costs`` (bits)
    float64, one for each symbol.
    """

    def __init__(self, lows: NDArray[np.int32], rows: tuple[NDArray[np.uint32], ...]) -> None:
        self.lows = np.ascontiguousarray(lows, np.int32)
        self.offsets = np.cumsum([0, *(row.size for row in rows)], dtype=np.int64)
        self.frequencies = np.concatenate([np.zeros(0, np.int64), *rows], dtype=np.int64)
        self._rows = rows

    @cached_property
    def costs(self) -> NDArray[np.float64]:
        """Bits of each symbol."""
        return 16.0 - np.log2(self.frequencies)

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """The sum of the frequencies before each symbol, for the encoder."""
        sums = np.cumsum(self.frequencies) - self.frequencies
        return sums - np.repeat(np.arange(len(self._rows)) * TOTAL, np.diff(self.offsets))

    @cached_property
    def reciprocals(self) -> NDArray[np.float64]:
        """1 / frequency, rounded up, for the encoder."""
        return _UP / self.frequencies

    @cached_property
    def bounds(self) -> NDArray[np.int64]:
        """Running sums with 0 first and 65536 last in each channel, for the decoder."""
        parts = [np.concatenate([[0], np.cumsum(row, dtype=np.int64)]) for row in self._rows]
        return np.concatenate([np.zeros(0, np.int64), *parts], dtype=np.int64)

    @cached_property
    def lookup(self) -> NDArray[np.uint16]:
        """(C, 1024): the symbol at the first of every 64 slots, for the decoder."""
        out = np.empty((len(self._rows), 1 << kernel.COARSE), np.uint16)
        kernel.coarse(self.offsets, self.bounds, out)
        return out
