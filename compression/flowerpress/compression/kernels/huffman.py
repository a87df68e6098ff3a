"""Prefix codes of at most 12 bits, written least significant bit first.

Bit order and words: see :mod:`flowerpress.compression.kernels.words`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.kernels import STATUS_OK, STATUS_TRUNCATED
from flowerpress.compression.kernels.jit import jit

__all__ = ["LONGEST", "decode", "encode"]

LONGEST = 12


@jit
def encode(
    symbols: NDArray[np.unsignedinteger],
    codes: NDArray[np.uint32],
    lengths: NDArray[np.uint8],
    words: NDArray[np.uint32],
) -> None:
    """Write the code of every symbol: ``codes`` hold the bits in the order of the stream."""
    full = np.uint64(32)
    hold = np.uint64(0)
    held = np.uint64(0)
    at = np.uint64(0)
    for i in range(symbols.size):
        s = symbols[i]
        hold |= np.uint64(codes[s]) << held
        held += np.uint64(lengths[s])
        if held >= full:
            words[at] = np.uint32(hold & np.uint64(0xFFFFFFFF))
            at += np.uint64(1)
            hold >>= full
            held -= full
    words[at] = np.uint32(hold)


@jit
def decode(
    words: NDArray[np.uint32],
    bits: int,
    table: NDArray[np.uint16],
    out: NDArray[np.unsignedinteger],
) -> tuple[int, np.int64]:
    """Fill ``out`` from hostile bits; return (status, bits used).

    ``table`` (4096,) maps the next 12 bits to symbol << 4 | length, length 1 to 12.
    """
    bit = np.uint64(0)
    end = np.uint64(bits)
    for i in range(out.size):
        at = bit >> np.uint64(5)
        window = np.uint64(words[at]) | (np.uint64(words[at + np.uint64(1)]) << np.uint64(32))
        entry = table[(window >> (bit & np.uint64(31))) & np.uint64(0xFFF)]
        bit += np.uint64(entry & np.uint16(15))
        if bit > end:
            return STATUS_TRUNCATED, np.int64(bit)
        out[i] = entry >> np.uint16(4)
    return STATUS_OK, np.int64(bit)
