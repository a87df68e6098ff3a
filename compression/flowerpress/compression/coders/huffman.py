"""Huffman codes of at most 12 bits: one table look-up a symbol, a whole bit at least.

Body: the split code (255: all symbols are the same one, a varint), the code lengths, the codes
padded to a whole byte, the tails. Codes are canonical (shorter first, then by token) and stand in
the stream from their highest bit to their lowest.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.coders.base import (
    Coder,
    Symbols,
    check_bits,
    check_status,
    symbol_dtype,
)
from flowerpress.compression.coders.split import choose, histogram, split_from_wire
from flowerpress.compression.coders.table import read_levels, write_levels
from flowerpress.compression.errors import FormatError
from flowerpress.compression.kernels import STATUS_TRUNCATED, bits
from flowerpress.compression.kernels import huffman as kernel
from flowerpress.compression.kernels.words import new_words, words_from_bytes, words_to_bytes
from flowerpress.compression.wire import Reader, Writer

__all__ = ["Huffman", "code_lengths"]

_CONSTANT = 255


class Huffman(Coder):
    """Length-limited canonical Huffman codes with their lengths in the body."""

    tag = 5
    name = "huffman"

    def _encode(self, values: Symbols, alphabet: int) -> bytes:
        writer = Writer()
        lowest = int(values.min())
        if lowest == int(values.max()):
            writer.u8(_CONSTANT)
            writer.varint(lowest)
            return writer.getvalue()
        split, counts = choose(values, alphabet)
        lengths = code_lengths(counts)
        writer.u8(split.code)
        writer.raw(write_levels(lengths, np.zeros_like(lengths), 0))
        tokens = split.tokenize(values)
        size = int(counts @ lengths)
        words = new_words(size)
        kernel.encode(tokens, _codes(lengths), lengths.astype(np.uint8), words)
        writer.raw(words_to_bytes(words, size))
        if not split.identity:
            tails = split.tail_bits(counts)
            words = new_words(tails)
            bits.pack_tails(values, tokens, split.widths, words)
            writer.raw(words_to_bytes(words, tails))
        return writer.getvalue()

    def _decode(self, body: memoryview, count: int, alphabet: int) -> Symbols:
        reader = Reader(body, self.field)
        code = reader.u8()
        if code == _CONSTANT:
            symbol = reader.varint()
            reader.finish()
            if symbol >= alphabet:
                raise FormatError(self.field, f"holds symbol {symbol} of {alphabet}")
            return np.full(count, symbol, dtype=symbol_dtype(alphabet))
        split = split_from_wire(code, alphabet, self.field)
        rest = reader.rest()
        levels, _, size = read_levels(rest, split.tokens, 0, self.field)
        table = self._table(levels)
        rest = rest[size:]
        if 8 * len(rest) < count:  # refuse before allocating what cannot be filled
            check_status(STATUS_TRUNCATED, self.field)
        tokens: Symbols = np.empty(count, dtype=np.uint8 if split.tokens <= 256 else np.uint16)
        status, used = kernel.decode(words_from_bytes(rest), 8 * len(rest), table, tokens)
        check_status(status, self.field)
        size = (int(used) + 7) // 8
        tails = 0 if split.identity else split.tail_bits(histogram(tokens, split.tokens))
        check_bits(rest[:size], int(used), self.field)
        check_bits(rest[size:], tails, self.field)
        if split.identity:
            return tokens.astype(symbol_dtype(alphabet), copy=False)
        symbols: Symbols = np.empty(count, dtype=symbol_dtype(alphabet))
        bits.unpack_tails(words_from_bytes(rest[size:]), tokens, split.bases, split.widths, symbols)
        return symbols

    def _table(self, lengths: NDArray[np.int64]) -> NDArray[np.uint16]:
        """Return symbol << 4 | length by the next 12 bits, for hostile code lengths."""
        occurring = lengths[lengths > 0]
        slots = 1 << kernel.LONGEST
        if int(occurring.max()) > kernel.LONGEST:
            raise FormatError(self.field, f"has a code of {occurring.max()} bits")
        single = occurring.tolist() == [1]
        if not single and int((slots >> occurring).sum()) != slots:
            raise FormatError(self.field, "has code lengths that form no complete code")
        table = np.zeros(slots, dtype=np.uint16)
        codes = _codes(lengths)
        for symbol in np.flatnonzero(lengths):
            length = int(lengths[symbol])
            table[int(codes[symbol]) :: 1 << length] = symbol << 4 | length
        if single:
            table[:] = table[0]
        return table


def code_lengths(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return optimal code lengths of at most 12 bits; 0 where the count is 0.

    Package-merge (L. Larmore and D. Hirschberg, "A fast algorithm for optimal length-limited
    Huffman codes", 1990); at most 4096 symbols may occur. A single symbol gets length 1.
    """
    lengths = np.zeros(counts.size, dtype=np.int64)
    leaves: list[tuple[int, tuple[int, ...]]] = sorted(
        (int(counts[i]), (int(i),)) for i in np.flatnonzero(counts)
    )
    if len(leaves) == 1:
        lengths[leaves[0][1][0]] = 1
        return lengths
    coins = leaves
    for _ in range(kernel.LONGEST - 1):
        pairs = [(a[0] + b[0], a[1] + b[1]) for a, b in zip(coins[::2], coins[1::2], strict=False)]
        coins = sorted(leaves + pairs, key=lambda coin: coin[0])
    for _, members in coins[: 2 * len(leaves) - 2]:
        for symbol in members:
            lengths[symbol] += 1
    return lengths


def _codes(lengths: NDArray[np.int64]) -> NDArray[np.uint32]:
    """Return canonical codes, their bits reversed into the order of the stream."""
    codes = np.zeros(lengths.size, dtype=np.uint32)
    code = 0
    before = 0
    for symbol in np.lexsort((np.arange(lengths.size), lengths)):
        length = int(lengths[symbol])
        if length == 0:
            continue
        code <<= length - before
        before = length
        codes[symbol] = int(format(code, f"0{length}b")[::-1], 2)
        code += 1
    return codes
