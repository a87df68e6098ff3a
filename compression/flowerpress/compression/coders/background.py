"""Symbols most of which are the same one: the smallest of three encodings.

FedZip (Malekijoo et al., arXiv:2102.01593, section 3.3) codes clustered tensors by Huffman codes,
by a table of addresses, or by the gaps between the symbols that differ, whichever is smallest.
Here each of the three is a body that decodes:

    0 huffman     all symbols
    1 addresses   background, k (varint), addresses of the k others at fixed width, their symbols
    2 gaps        the same with Golomb-coded gaps

Positions stand in a blob of their own; the others' symbols are numbered without the background.
"""

from __future__ import annotations

import numpy as np

from flowerpress.compression.coders.base import Coder, Symbols, symbol_dtype
from flowerpress.compression.coders.huffman import Huffman
from flowerpress.compression.coders.pack import Pack
from flowerpress.compression.errors import ConfigError, FormatError
from flowerpress.compression.positions import PositionMode, decode_positions, encode_positions
from flowerpress.compression.wire import Reader, Writer

__all__ = ["ENCODINGS", "Background"]

ENCODINGS = ("smallest", "huffman", "address", "gap")
_HUFFMAN = 0
_MODES: dict[int, PositionMode] = {1: "address", 2: "golomb"}
_LARGEST = 256


class Background(Coder):
    """For alphabets of at most 256 symbols, one of which is frequent.

    ``encoding`` is one of ``ENCODINGS``: the paper's three, or whichever of them is smallest.
    Bodies name their own, so only an encoder knows it.
    """

    tag = 7
    name = "background"
    largest = _LARGEST

    def __init__(self, encoding: str = "smallest") -> None:
        if encoding not in ENCODINGS:
            raise ConfigError(f"encoding is {encoding!r}; it must be one of {', '.join(ENCODINGS)}")
        self.encoding = encoding

    def _encode(self, values: Symbols, alphabet: int) -> bytes:
        if alphabet > _LARGEST:
            raise ValueError(f"background codes at most {_LARGEST} symbols, not {alphabet}")
        bodies = []
        if self.encoding in ("smallest", "huffman"):
            bodies.append(bytes([_HUFFMAN]) + Huffman().encode(values, alphabet))
        common = int(np.bincount(values, minlength=alphabet).argmax())
        where = np.flatnonzero(values != common)
        others = values[where]
        others -= others > common
        for number, mode in _MODES.items():
            if self.encoding not in ("smallest", ENCODINGS[number + 1]):
                continue
            out = Writer()
            out.u8(number)
            out.u8(common)
            out.varint(where.size)
            out.blob(encode_positions(where, values.size, mode))
            out.raw(Pack().encode(others, alphabet - 1))
            bodies.append(out.getvalue())
        return min(bodies, key=len)

    def _decode(self, body: memoryview, count: int, alphabet: int) -> Symbols:
        reader = Reader(body, self.field)
        number = reader.u8()
        if number == _HUFFMAN:
            return Huffman().decode(reader.rest(), count, alphabet)
        if number not in _MODES or alphabet > _LARGEST:
            raise FormatError(self.field, f"unknown encoding {number}")
        common, k = reader.u8(), reader.varint()
        if common >= alphabet or k > count:
            raise FormatError(self.field, f"{k} others than symbol {common}, of {count} symbols")
        where = decode_positions(Reader(reader.blob(), f"{self.field}.positions"), k, count)
        others = Pack().decode(reader.rest(), k, alphabet - 1)
        symbols = np.full(count, common, symbol_dtype(alphabet))
        symbols[where] = others + (others >= common)
        return symbols
