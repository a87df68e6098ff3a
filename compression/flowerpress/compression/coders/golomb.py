"""Golomb codes: for counts and gaps that fall off geometrically, without a table."""

from __future__ import annotations

import math

import numpy as np

from flowerpress.compression.coders.base import (
    Coder,
    Symbols,
    check_bits,
    check_status,
    symbol_dtype,
)
from flowerpress.compression.errors import FormatError
from flowerpress.compression.kernels import STATUS_TRUNCATED
from flowerpress.compression.kernels import golomb as kernel
from flowerpress.compression.kernels.words import new_words, words_from_bytes, words_to_bytes
from flowerpress.compression.wire import Reader, Writer

__all__ = ["Golomb"]


class Golomb(Coder):
    """One divisor for all symbols, the best one found, then their Golomb codes.

    Body: divisor (varint), then quotients in unary and remainders in truncated binary (see
    :func:`flowerpress.compression.kernels.golomb.encode`).
    """

    tag = 6
    name = "golomb"

    def _encode(self, values: Symbols, alphabet: int) -> bytes:
        divisor, size = best_divisor(values)
        words = new_words(size)
        kernel.encode(values, divisor, words)
        writer = Writer()
        writer.varint(divisor)
        writer.raw(words_to_bytes(words, size))
        return writer.getvalue()

    def _decode(self, body: memoryview, count: int, alphabet: int) -> Symbols:
        reader = Reader(body, self.field)
        divisor = reader.varint()
        if not 1 <= divisor <= alphabet:
            raise FormatError(self.field, f"divisor {divisor} is not in 1 to {alphabet}")
        data = reader.rest()
        # Every symbol takes a bit: refuse before allocating what so short a body cannot hold.
        if 8 * len(data) < count:
            check_status(STATUS_TRUNCATED, self.field)
        symbols: Symbols = np.empty(count, dtype=symbol_dtype(alphabet))
        status, used = kernel.decode(
            words_from_bytes(data), 8 * len(data), divisor, alphabet - 1, symbols
        )
        check_status(status, self.field)
        check_bits(data, int(used), self.field)
        return symbols


def best_divisor(values: Symbols) -> tuple[int, int]:
    """Return a divisor and the bits that it takes: the best of a few around the optimum.

    For geometric values the optimum is about mean * ln 2 (R. Gallager and D. van Voorhis, "Optimal
    source codes for geometrically distributed integer alphabets", 1975); powers of two are tried
    beside it because real gaps are only roughly geometric.
    """
    mean = float(values.mean(dtype=np.float64))
    # P(v) ~ q**v with mean q / (1 - q); the optimum solves q**b + q**(b+1) <= 1.
    q = mean / (1 + mean)
    ideal = 1 if q < 0.5 else max(1, round(-math.log(1 + q) / math.log(q)))
    power = 1 << (ideal.bit_length() - 1)
    largest = int(values.max())
    candidates = {c for c in (ideal, power, 2 * power) if c <= max(1, largest)}
    sized = [(int(kernel.size(values, divisor)), divisor) for divisor in sorted(candidates or {1})]
    size, divisor = min(sized)
    return divisor, size
