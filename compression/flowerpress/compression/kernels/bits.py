"""Bit streams: fixed widths, tails of tokens, bitmaps.

Bit order and words: see :mod:`flowerpress.compression.kernels.words`. Sizes of outputs are
computed beforehand by the callers; every ``words`` carries two words of slack.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.kernels.jit import jit

__all__ = [
    "pack",
    "pack_tails",
    "positions_from_bitmap",
    "tokenize",
    "unpack",
    "unpack_tails",
]


@jit
def pack(values: NDArray[np.unsignedinteger], width: int, words: NDArray[np.uint32]) -> None:
    """Write every value with ``width`` bits (1 to 32); each must fit."""
    step = np.uint64(width)
    full = np.uint64(32)
    hold = np.uint64(0)
    held = np.uint64(0)
    at = np.uint64(0)
    for i in range(values.size):
        hold |= np.uint64(values[i]) << held
        held += step
        if held >= full:
            words[at] = np.uint32(hold & np.uint64(0xFFFFFFFF))
            at += np.uint64(1)
            hold >>= full
            held -= full
    words[at] = np.uint32(hold)


@jit
def unpack(words: NDArray[np.uint32], width: int, out: NDArray[np.unsignedinteger]) -> None:
    """Read ``out.size`` values of ``width`` bits (1 to 32); ``words`` must hold them all."""
    step = np.uint64(width)
    mask = (np.uint64(1) << step) - np.uint64(1)
    bit = np.uint64(0)
    for i in range(out.size):
        at = bit >> np.uint64(5)
        window = np.uint64(words[at]) | (np.uint64(words[at + np.uint64(1)]) << np.uint64(32))
        out[i] = (window >> (bit & np.uint64(31))) & mask
        bit += step


@jit
def tokenize(
    values: NDArray[np.unsignedinteger],
    direct: int,
    mantissa: int,
    tokens: NDArray[np.unsignedinteger],
) -> None:
    """Map values below 2**32 to tokens: themselves below 2**direct, above that by magnitude.

    Above, the token names the position e of the highest bit and the ``mantissa`` bits below it
    (mantissa <= direct): 2**direct + (e - direct) 2**mantissa + those bits.
    """
    first = np.uint64(1) << np.uint64(direct)
    m = np.uint64(mantissa)
    mask = (np.uint64(1) << m) - np.uint64(1)
    for i in range(values.size):
        v = np.uint64(values[i])
        token = v
        if v >= first:
            e = np.uint64(0)
            rest = v
            for half in (16, 8, 4, 2, 1):
                if rest >> np.uint64(half):
                    rest >>= np.uint64(half)
                    e += np.uint64(half)
            token = first + ((e - np.uint64(direct)) << m) + ((v >> (e - m)) & mask)
        tokens[i] = token


@jit
def pack_tails(
    values: NDArray[np.unsignedinteger],
    tokens: NDArray[np.unsignedinteger],
    widths: NDArray[np.uint8],
    words: NDArray[np.uint32],
) -> None:
    """Write the ``widths[token]`` low bits (0 to 31) of every value."""
    full = np.uint64(32)
    hold = np.uint64(0)
    held = np.uint64(0)
    at = np.uint64(0)
    for i in range(values.size):
        width = np.uint64(widths[tokens[i]])
        low = np.uint64(values[i]) & ((np.uint64(1) << width) - np.uint64(1))
        hold |= low << held
        held += width
        if held >= full:
            words[at] = np.uint32(hold & np.uint64(0xFFFFFFFF))
            at += np.uint64(1)
            hold >>= full
            held -= full
    words[at] = np.uint32(hold)


@jit
def unpack_tails(
    words: NDArray[np.uint32],
    tokens: NDArray[np.unsignedinteger],
    bases: NDArray[np.uint32],
    widths: NDArray[np.uint8],
    out: NDArray[np.unsignedinteger],
) -> None:
    """Set ``out`` to base plus tail of every token; ``words`` must hold all tails."""
    bit = np.uint64(0)
    for i in range(out.size):
        token = tokens[i]
        width = np.uint64(widths[token])
        at = bit >> np.uint64(5)
        window = np.uint64(words[at]) | (np.uint64(words[at + np.uint64(1)]) << np.uint64(32))
        low = (window >> (bit & np.uint64(31))) & ((np.uint64(1) << width) - np.uint64(1))
        out[i] = np.uint64(bases[token]) + low
        bit += width


@jit
def positions_from_bitmap(bitmap: NDArray[np.uint8], size: int, out: NDArray[np.int64]) -> int:
    """List the set bits below ``size``; return their number, or -1 when it is not ``out.size``.

    ``bitmap`` holds at least ``size`` bits; none may be set behind the last.
    """
    found = 0
    for i in range(bitmap.size):
        byte = bitmap[i]
        place = i * 8
        while byte != 0:
            if byte & 1:
                if found >= out.size or place >= size:
                    return -1
                out[found] = place
                found += 1
            byte >>= 1
            place += 1
    return found if found == out.size else -1
