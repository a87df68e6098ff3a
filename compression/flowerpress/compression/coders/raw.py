"""Whole bytes, little endian: nothing saved, nothing to compute."""

from __future__ import annotations

import numpy as np

from flowerpress.compression.coders.base import Coder, Symbols, check_bits, symbol_dtype

__all__ = ["Raw"]


class Raw(Coder):
    """The smallest whole-byte integers that hold the alphabet."""

    tag = 1
    name = "raw"

    def _encode(self, values: Symbols, alphabet: int) -> bytes:
        return values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()

    def _decode(self, body: memoryview, count: int, alphabet: int) -> Symbols:
        dtype = symbol_dtype(alphabet)
        check_bits(body, 8 * count * dtype.itemsize, self.field)
        symbols: Symbols = np.frombuffer(body, dtype=dtype.newbyteorder("<")).astype(dtype)
        return symbols
