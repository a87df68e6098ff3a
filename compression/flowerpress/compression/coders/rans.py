"""rANS with a static table in the body: within half a percent of the order-0 entropy.

Body: one byte (bits 0-1 mode, 2-4 log2 of the lanes, 5-7 precision of the table), then by mode

    0 constant   the symbol, a varint
    1 packed     every symbol at fixed width: for what a table cannot help
    2 symbols    table, states and words
    3 split      split code, table, [size of the tails, a varint, when the split is by magnitude],
                 states and words, tails (see :mod:`flowerpress.compression.coders.split`)

A single lane starts in state 0, stores its final state without leading zero bytes and reads no
words once they are used up, so that a handful of symbols costs a byte or two. Several lanes start
in state 2**16 and store four bytes each.
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
    width_of,
)
from flowerpress.compression.coders.frequencies import Model, model_of, read_model
from flowerpress.compression.coders.pack import Pack
from flowerpress.compression.coders.split import Split, choose, histogram, split_from_wire
from flowerpress.compression.errors import FormatError, TruncatedError
from flowerpress.compression.kernels import bits
from flowerpress.compression.kernels import rans as kernel
from flowerpress.compression.kernels.words import new_words, words_from_bytes, words_to_bytes
from flowerpress.compression.wire import Reader, Writer

__all__ = ["Rans"]

_CONSTANT, _PACKED, _SYMBOLS, _SPLIT = range(4)
_LANES = (1, 2, 4, 8, 16, 32)
_START = 1 << 16
# A lane stores about three bytes more than it needs: one lane for every so many bytes keeps that
# at a thousandth. Four lanes already hide the latency of a step on common processors; 16 are ample.
_BYTES_PER_LANE = 3072
_MOST_LANES = 16


class Rans(Coder):
    """Order-0 rANS, the best coder for almost everything."""

    tag = 4
    name = "rans"

    def _encode(self, values: Symbols, alphabet: int) -> bytes:
        writer = Writer()
        lowest = int(values.min())
        if lowest == int(values.max()):
            writer.u8(_CONSTANT)
            writer.varint(lowest)
            return writer.getvalue()
        split, counts = choose(values, alphabet)
        model = model_of(counts)
        tails = split.tail_bits(counts)
        packed_size = 1 + (width_of(alphabet) * values.size + 7) // 8
        if 1 + len(model.table) + (model.bits + tails) / 8 < packed_size:
            self._write(writer, values, split, model, tails)
            if len(writer) < packed_size:
                return writer.getvalue()
        return bytes([_PACKED]) + Pack().encode(values, alphabet)

    def _write(
        self, writer: Writer, values: Symbols, split: Split, model: Model, tails: int
    ) -> None:
        wanted = int(model.bits) // (8 * _BYTES_PER_LANE)
        log_lanes = min(max(1, wanted), _MOST_LANES).bit_length() - 1
        mode = _SYMBOLS if split.identity else _SPLIT
        writer.u8(mode | log_lanes << 2 | model.kept << 5)
        if mode == _SPLIT:
            writer.u8(split.code)
        writer.raw(model.table)
        if split.by_magnitude:
            writer.varint((tails + 7) // 8)
        tokens = split.tokenize(values)
        for part in _encode_tokens(tokens, model, 1 << log_lanes):
            writer.raw(part)
        if mode == _SPLIT:
            words = new_words(tails)
            bits.pack_tails(values, tokens, split.widths, words)
            writer.raw(words_to_bytes(words, tails))

    def _decode(self, body: memoryview, count: int, alphabet: int) -> Symbols:
        reader = Reader(body, self.field)
        first = reader.u8()
        mode = first & 3
        if mode in (_CONSTANT, _PACKED) and first != mode:
            raise FormatError(self.field, f"starts with the unknown mode {first}")
        if mode == _CONSTANT:
            symbol = reader.varint()
            reader.finish()
            if symbol >= alphabet:
                raise FormatError(self.field, f"holds symbol {symbol} of {alphabet}")
            return np.full(count, symbol, dtype=symbol_dtype(alphabet))
        if mode == _PACKED:
            return Pack().decode(reader.rest(), count, alphabet)
        log_lanes = first >> 2 & 7
        if log_lanes >= len(_LANES):
            raise FormatError(self.field, f"asks for 2**{log_lanes} lanes")
        split = split_from_wire(reader.u8() if mode == _SPLIT else 0, alphabet, self.field)
        rest = reader.rest()
        model, size = read_model(rest, split.tokens, first >> 5, self.field)
        reader = Reader(rest[size:], self.field)
        tail_bytes = (split.code * count + 7) // 8
        if split.by_magnitude:
            tail_bytes = reader.varint()
        if tail_bytes > reader.remaining:
            raise TruncatedError(self.field, f"needs {tail_bytes} bytes for its tails")
        coded = reader.take(reader.remaining - tail_bytes)
        tokens = self._decode_tokens(coded, model, _LANES[log_lanes], count)
        if split.identity:
            return tokens.astype(symbol_dtype(alphabet), copy=False)
        tails = reader.rest()
        check_bits(tails, split.tail_bits(histogram(tokens, split.tokens)), self.field)
        symbols: Symbols = np.empty(count, dtype=symbol_dtype(alphabet))
        bits.unpack_tails(words_from_bytes(tails), tokens, split.bases, split.widths, symbols)
        return symbols

    def _decode_tokens(self, coded: memoryview, model: Model, lanes: int, count: int) -> Symbols:
        """Decode states and words; the body must end with them."""
        size = min(4, len(coded)) if lanes == 1 else 4 * lanes
        if len(coded) < size:
            raise TruncatedError(self.field, f"needs {size} bytes for its states")
        if (len(coded) - size) % 2:
            raise FormatError(self.field, "holds half a word")
        if size < 4 and size and coded[size - 1] == 0:
            raise FormatError(self.field, "holds a state that is padded with zeros")
        states = np.zeros(lanes, dtype="<u4")
        states.view(np.uint8)[:size] = np.frombuffer(coded[:size], dtype=np.uint8)
        words = np.frombuffer(coded[size:], dtype="<u2").astype(np.uint16)
        entries, owners = model.decoder_tables(
            np.dtype(np.uint8 if model.frequencies.size <= 256 else np.uint16)
        )
        tokens: Symbols = np.empty(count, dtype=owners.dtype)
        start = 0 if lanes == 1 else _START
        states = states.astype(np.uint32, copy=False)
        status = kernel.decode(words, states, start, entries, owners, tokens)
        check_status(status, self.field)
        return tokens


def _encode_tokens(tokens: Symbols, model: Model, lanes: int) -> tuple[bytes, memoryview]:
    """Return states and words."""
    reciprocals, packed = model.encoder_tables()
    states: NDArray[np.uint32] = np.full(lanes, 0 if lanes == 1 else _START, dtype=np.uint32)
    words = np.empty(tokens.size + 1, dtype=np.uint16)
    used = kernel.encode(tokens, states, reciprocals, packed, words)
    stored = states.astype("<u4", copy=False).tobytes()
    if lanes == 1 and used == words.size:
        stored = stored.rstrip(b"\0")
    return stored, words[used:].astype("<u2", copy=False).data
