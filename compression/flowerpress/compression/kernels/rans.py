"""Interleaved rANS: 32-bit states, 16-bit words, 12-bit frequencies.

Lane ``i`` of ``L`` codes symbols ``i, i + L, i + 2 L, ...``; all lanes share one stream of words.
The encoder walks backwards and fills its buffer from the end, so that the decoder walks forwards
in both. With frequencies ``f`` and their running sums ``c`` out of 4096:

    encode:  if x >= f << 20: emit x mod 2**16, x = x >> 16;   x = 4096 (x // f) + x mod f + c
    decode:  s = symbol at slot x mod 4096;  x = f (x >> 12) + x mod 4096 - c;
             if x < 2**16: x = x << 16 | next word

Either way a symbol moves at most one word (J. Duda, "Asymmetric numeral systems", 2013,
arXiv:1311.2540; interleaving: F. Giesen, "Interleaved entropy coders", 2014, arXiv:1402.3392).

The encoder divides by multiplying: with m = 2**44 // f + 1 (2**32 for f = 4096) the quotient
x // f is (x m) >> 44 exactly, since x < f << 20 and the error m f - 2**44 is at most f, so that
x (m f - 2**44) < f f 2**20 < 2**44; the product stays below 2**64 for the same reason.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.kernels import (
    STATUS_OK,
    STATUS_STATE,
    STATUS_SURPLUS,
    STATUS_TRUNCATED,
)
from flowerpress.compression.kernels.jit import jit

__all__ = ["PRECISION", "TOTAL", "decode", "encode", "histogram", "normalize"]

PRECISION = 12
TOTAL = 1 << PRECISION


@jit
def histogram(symbols: NDArray[np.unsignedinteger], counts: NDArray[np.int64]) -> None:
    """Add to ``counts`` (4, bins) int64; its rows take turns, and their sum is the histogram.

    Four rows, because adding twice in a row to one counter would wait for the first addition.
    ``symbols`` must be smaller than ``bins``.
    """
    n = np.uint64(symbols.size)
    four = n & ~np.uint64(3)
    for i in range(np.uint64(0), four, np.uint64(4)):
        counts[0, symbols[i]] += 1
        counts[1, symbols[i + np.uint64(1)]] += 1
        counts[2, symbols[i + np.uint64(2)]] += 1
        counts[3, symbols[i + np.uint64(3)]] += 1
    for i in range(four, n):
        counts[0, symbols[i]] += 1


@jit
def normalize(weights: NDArray[np.int64], frequencies: NDArray[np.int64]) -> None:
    """Scale non-negative ``weights`` to ``frequencies`` that sum to 4096, in integers only.

    Every positive weight gets at least 1 and every zero gets 0. There must be a positive weight,
    at most 4096 of them, and their sum must be below 2**50. After rounding, units are taken or
    given where that changes the code length least (first of equals), so the result depends on
    nothing but the weights.
    """
    total = 0
    for i in range(weights.size):
        total += weights[i]
    excess = -TOTAL
    for i in range(weights.size):
        f = (weights[i] * TOTAL + (total >> 1)) // total
        if f == 0 and weights[i] > 0:
            f = 1
        frequencies[i] = f
        excess += f
    while excess > 0:
        best = -1
        for i in range(weights.size):
            if frequencies[i] > 1 and (
                best < 0
                or weights[i] * (2 * frequencies[best] - 1)
                < weights[best] * (2 * frequencies[i] - 1)
            ):
                best = i
        frequencies[best] -= 1
        excess -= 1
    while excess < 0:
        best = -1
        for i in range(weights.size):
            if weights[i] > 0 and (
                best < 0
                or weights[i] * (2 * frequencies[best] + 1)
                > weights[best] * (2 * frequencies[i] + 1)
            ):
                best = i
        frequencies[best] += 1
        excess += 1


@jit
def encode(
    symbols: NDArray[np.unsignedinteger],
    states: NDArray[np.uint32],
    reciprocals: NDArray[np.uint64],
    packed: NDArray[np.uint32],
    words: NDArray[np.uint16],
) -> np.int64:
    """Code ``symbols`` into the end of ``words``; return the index of the first word used.

    ``states`` (lanes,) holds the initial states and receives the final ones. For every symbol that
    occurs, ``reciprocals`` holds m and ``packed`` holds f << 12 | c. ``words`` needs room for one
    word a symbol and one more.
    """
    one = np.uint64(1)
    sixteen = np.uint32(16)
    lanes = np.uint64(states.size)
    pos = np.uint64(words.size)
    row = np.uint64(symbols.size)
    # The last row may be short; it is coded first, and all rows before it are whole.
    width = row % lanes
    if width == np.uint64(0):
        width = lanes
    while row > np.uint64(0):
        row -= width
        for j in range(width):
            lane = width - one - j
            s = symbols[row + lane]
            x = states[lane]
            entry = packed[s]
            f = entry >> np.uint32(12)
            words[pos - one] = np.uint16(x & np.uint32(0xFFFF))
            full = (x >> np.uint32(20)) >= f
            pos -= np.uint64(full)
            x = x >> (np.uint32(full) * sixteen)
            quotient = np.uint32((np.uint64(x) * reciprocals[s]) >> np.uint64(44))
            states[lane] = x + quotient * (np.uint32(4096) - f) + (entry & np.uint32(0xFFF))
        width = lanes
    return np.int64(pos)


@jit
def decode(
    words: NDArray[np.uint16],
    states: NDArray[np.uint32],
    initial: int,
    table: NDArray[np.uint32],
    symbol_of_slot: NDArray[np.unsignedinteger],
    out: NDArray[np.unsignedinteger],
) -> int:
    """Fill ``out`` from hostile ``words`` and ``states``; return a status.

    ``table`` (4096,) holds f << 12 | (slot - c) and ``symbol_of_slot`` (4096,) the symbols.
    ``initial`` is the state in which the encoder starts. Safe for any words and states: a slot is
    below 4096 by its mask, and no word is read beyond the last.
    """
    lanes = np.uint64(states.size)
    n = np.uint64(out.size)
    available = np.uint64(words.size)
    pos = np.uint64(0)
    at = np.uint64(0)
    # While a whole row of symbols and a word for each are left, nothing needs to be checked.
    while at + lanes <= n and pos + lanes <= available:
        for lane in range(lanes):
            x = states[lane]
            slot = x & np.uint32(0xFFF)
            entry = table[slot]
            out[at + lane] = symbol_of_slot[slot]
            x = (entry >> np.uint32(12)) * (x >> np.uint32(12)) + (entry & np.uint32(0xFFF))
            low = x < np.uint32(0x10000)
            refilled = (x << np.uint32(16)) | np.uint32(words[pos])
            states[lane] = refilled if low else x
            pos += np.uint64(low)
        at += lanes
    turn = np.uint64(0)
    while at < n:
        x = states[turn]
        slot = x & np.uint32(0xFFF)
        entry = table[slot]
        out[at] = symbol_of_slot[slot]
        x = (entry >> np.uint32(12)) * (x >> np.uint32(12)) + (entry & np.uint32(0xFFF))
        if x < np.uint32(0x10000) and pos < available:
            x = (x << np.uint32(16)) | np.uint32(words[pos])
            pos += np.uint64(1)
        states[turn] = x
        at += np.uint64(1)
        turn += np.uint64(1)
        if turn == lanes:
            turn = np.uint64(0)
    if pos < available:
        return STATUS_SURPLUS
    # A state that found no word is below 2**16 and can only shrink: it cannot end as it began.
    for lane in range(lanes):
        if states[lane] != np.uint32(initial):
            return STATUS_TRUNCATED if states[lane] < np.uint32(initial) else STATUS_STATE
    return STATUS_OK
