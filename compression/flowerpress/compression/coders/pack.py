"""Fixed width: ceil(log2 alphabet) bits for every symbol."""

from __future__ import annotations

import numpy as np

from flowerpress.compression.coders.base import Coder, Symbols, check_bits, symbol_dtype, width_of
from flowerpress.compression.kernels import bits
from flowerpress.compression.kernels.words import new_words, words_from_bytes, words_to_bytes

__all__ = ["Pack"]


class Pack(Coder):
    """Symbols side by side, least significant bit first, padded with zeros to a whole byte."""

    tag = 2
    name = "pack"

    def _encode(self, values: Symbols, alphabet: int) -> bytes:
        width = width_of(alphabet)
        words = new_words(width * values.size)
        bits.pack(values, width, words)
        return words_to_bytes(words, width * values.size)

    def _decode(self, body: memoryview, count: int, alphabet: int) -> Symbols:
        width = width_of(alphabet)
        check_bits(body, width * count, self.field)
        symbols: Symbols = np.empty(count, dtype=symbol_dtype(alphabet))
        bits.unpack(words_from_bytes(body), width, symbols)
        return symbols
