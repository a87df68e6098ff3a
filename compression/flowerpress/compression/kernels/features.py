"""rANS whose frequencies differ by row: 48-bit states, 16-bit words, 16-bit frequencies.

The symbols are (C, N) int32; row ``c`` has its own frequencies. Lane ``i`` of ``L`` codes the
symbols ``i, i + L, i + 2 L, ...`` of every row. The encoder walks backwards and fills its buffer
from the end, so that the decoder walks forwards in both. With frequencies ``f`` and their running
sums ``c`` out of 65536:

    encode:  if x >= f << 32: emit x mod 2**16, x = x >> 16;  x = 65536 (x // f) + x mod f + c
    decode:  s = symbol at slot x mod 65536;  x = f (x >> 16) + x mod 65536 - c;
             if x < 2**32: x = x << 16 | next word

so that states stay below 2**48 and a symbol moves at most one word (J. Duda, "Asymmetric numeral
systems", 2013, arXiv:1311.2540). States are 2**16 times the sum of the frequencies and more: what
is lost by rounding is far below a thousandth, even at a hundredth of a bit a symbol.

The encoder divides in double precision: x < f << 32 is exact, and 1 / f rounded up by 2**-51 makes
the product too large by less than 2**32 * 2**-50 < 1 / f, so that its whole part is x // f.

What has no frequency of its own is coded as the last symbol of its row, the escape, and its
distance from the row's symbols follows in a separate string of bits as an Elias gamma code (P.
Elias, IEEE Trans. Inf. Theory 21(2), 1975): with u = 2 (v - end) from the end of the row's symbols
on and u = 2 (low - 1 - v) + 1 below them, as many zeros as u + 1 has bits after its first, then
the bits of u + 1 from the first to the last. Bits fill bytes from the least significant.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.kernels import (
    STATUS_OK,
    STATUS_RANGE,
    STATUS_STATE,
    STATUS_SURPLUS,
    STATUS_TRUNCATED,
)
from flowerpress.compression.kernels.jit import jit

__all__ = [
    "COARSE",
    "STATE_BITS",
    "coarse",
    "decode",
    "encode",
    "escape_decode",
    "escape_encode",
    "measure",
]

STATE_BITS = 48
COARSE = 10
"""The decoder looks up the first ten bits of a slot and searches on from there."""

_MOST = 1 << 30
_WIDEST = 34  # bits of u + 1: symbols are at most 2**30 apart from zero, and their side takes one


@jit
def measure(
    symbols: NDArray[np.int32],
    lows: NDArray[np.int32],
    offsets: NDArray[np.int64],
    costs: NDArray[np.float64],
    totals: NDArray[np.float64],
) -> None:
    """Set ``totals`` (3,): bits of the symbols, bits behind escapes, number of escapes.

    ``costs`` holds the bits of every symbol, row after row from ``offsets``; the last of a row is
    the escape's.
    """
    spent = 0.0
    behind = 0
    many = 0
    for c in range(symbols.shape[0]):
        first = np.int64(lows[c])
        own = offsets[c + 1] - offsets[c] - 1
        for n in range(symbols.shape[1]):
            index = np.int64(symbols[c, n]) - first
            if index < 0 or index >= own:
                u = 2 * (index - own) if index >= own else 2 * (-1 - index) + 1
                width = 1
                while (u + 1) >> width:
                    width += 1
                behind += 2 * width - 1
                many += 1
                index = own
            spent += costs[offsets[c] + index]
    totals[0] = spent
    totals[1] = behind
    totals[2] = many


@jit
def encode(
    symbols: NDArray[np.int32],
    lows: NDArray[np.int32],
    offsets: NDArray[np.int64],
    frequencies: NDArray[np.int64],
    starts: NDArray[np.int64],
    reciprocals: NDArray[np.float64],
    states: NDArray[np.int64],
    words: NDArray[np.uint16],
) -> np.int64:
    """Code ``symbols`` into the end of ``words``; return the index of the first word used.

    ``states`` (lanes,) holds the initial states and receives the final ones. ``words`` needs room
    for one word a symbol and one more.
    """
    lanes = np.int64(states.size)
    pos = np.int64(words.size)
    for row in range(symbols.shape[0]):
        c = symbols.shape[0] - 1 - row
        first = np.int64(lows[c])
        at = offsets[c]
        own = offsets[c + 1] - at - 1
        end = np.int64(symbols.shape[1])
        width = end % lanes
        if width == 0:
            width = lanes
        while end > 0:
            end -= width
            for j in range(width):
                lane = width - 1 - j
                index = np.int64(symbols[c, end + lane]) - first
                if index < 0 or index > own:
                    index = own
                s = at + index
                x = states[lane]
                f = frequencies[s]
                words[pos - 1] = np.uint16(x & 0xFFFF)
                full = np.int64((x >> 32) >= f)
                pos -= full
                x = x >> (full << 4)
                quotient = np.int64(np.float64(x) * reciprocals[s])
                states[lane] = x + quotient * (65536 - f) + starts[s]
            width = lanes
    return pos


@jit
def decode(
    words: NDArray[np.uint16],
    states: NDArray[np.int64],
    initial: int,
    lows: NDArray[np.int32],
    offsets: NDArray[np.int64],
    bounds: NDArray[np.int64],
    lookup: NDArray[np.uint16],
    out: NDArray[np.int32],
    escapes: NDArray[np.int64],
) -> int:
    """Fill ``out`` (C, N) from hostile ``words`` and ``states``; return a status.

    ``bounds`` holds, for row ``c`` from ``offsets[c] + c``, the running sums with 0 first and
    65536 last; ``lookup`` (C, 1024) the symbol at the first of every 64 slots. ``initial`` is the
    state in which the encoder starts. An escape is written as the value behind its row's last, and
    ``escapes`` (1,) receives their number. Safe for any words and states below 2**48: a slot is
    below 65536 by its mask, a search ends at the last bound, which is larger, after at most 64
    steps, and no word is read beyond the last.
    """
    lanes = np.int64(states.size)
    n = np.int64(out.shape[1])
    available = np.int64(words.size)
    pos = np.int64(0)
    many = np.int64(0)
    for c in range(out.shape[0]):
        first = np.int64(lows[c])
        base = offsets[c] + c
        own = offsets[c + 1] - offsets[c] - 1
        at = np.int64(0)
        while at < n:
            width = min(lanes, n - at)
            for lane in range(width):
                x = states[lane]
                slot = x & 0xFFFF
                s = np.int64(lookup[c, slot >> 6])
                while bounds[base + s + 1] <= slot:
                    s += 1
                start = bounds[base + s]
                x = (bounds[base + s + 1] - start) * (x >> 16) + slot - start
                out[c, at + lane] = np.int32(first + s)
                many += np.int64(s == own)
                if x < 0x100000000 and pos < available:
                    x = (x << 16) | np.int64(words[pos])
                    pos += 1
                states[lane] = x
            at += width
    escapes[0] = many
    if pos < available:
        return STATUS_SURPLUS
    # A state that found no word is below 2**32 and can only shrink: it cannot end as it began.
    for lane in range(lanes):
        if states[lane] != initial:
            return STATUS_TRUNCATED if states[lane] < initial else STATUS_STATE
    return STATUS_OK


@jit
def coarse(offsets: NDArray[np.int64], bounds: NDArray[np.int64], out: NDArray[np.uint16]) -> None:
    """Set ``out`` (C, 1024) to the symbol that owns the first of every 64 slots of each row."""
    for c in range(out.shape[0]):
        base = offsets[c] + c
        s = 0
        for bucket in range(out.shape[1]):
            while bounds[base + s + 1] <= bucket << 6:
                s += 1
            out[c, bucket] = s


@jit
def escape_encode(
    symbols: NDArray[np.int32],
    lows: NDArray[np.int32],
    offsets: NDArray[np.int64],
    out: NDArray[np.uint8],
) -> np.int64:
    """Write the distances of what has no frequency of its own; return the number of bits.

    ``out`` must be zeros, with room for the bits that ``measure`` counted.
    """
    bit = np.int64(0)
    for c in range(symbols.shape[0]):
        first = np.int64(lows[c])
        own = offsets[c + 1] - offsets[c] - 1
        for n in range(symbols.shape[1]):
            index = np.int64(symbols[c, n]) - first
            if index < 0 or index >= own:
                u = 2 * (index - own) if index >= own else 2 * (-1 - index) + 1
                width = 1
                while (u + 1) >> width:
                    width += 1
                bit += width - 1
                for j in range(width):
                    one = ((u + 1) >> (width - 1 - j)) & 1
                    out[bit >> 3] |= np.uint8(one << (bit & 7))
                    bit += 1
    return bit


@jit
def escape_decode(
    data: NDArray[np.uint8],
    lows: NDArray[np.int32],
    offsets: NDArray[np.int64],
    out: NDArray[np.int32],
) -> int:
    """Replace the escapes in ``out`` (C, N) by what hostile ``data`` says; return a status.

    All of ``data`` must be used, but for zeros in its last byte.
    """
    bit = np.int64(0)
    bits = np.int64(data.size) * 8
    for c in range(out.shape[0]):
        first = np.int64(lows[c])
        own = offsets[c + 1] - offsets[c] - 1
        escape = first + own
        for n in range(out.shape[1]):
            if out[c, n] == escape:
                width = 1
                while bit < bits and (data[bit >> 3] >> (bit & 7)) & 1 == 0:
                    bit += 1
                    width += 1
                    if width > _WIDEST:
                        return STATUS_RANGE
                if bit + width > bits:
                    return STATUS_TRUNCATED
                u = np.int64(0)
                for _ in range(width):
                    u = (u << 1) | np.int64((data[bit >> 3] >> (bit & 7)) & 1)
                    bit += 1
                u -= 1
                value = escape + (u >> 1) if u & 1 == 0 else first - 1 - (u >> 1)
                if value < -_MOST or value > _MOST:
                    return STATUS_RANGE
                out[c, n] = np.int32(value)
    if bits - bit >= 8:
        return STATUS_SURPLUS
    while bit < bits:
        if (data[bit >> 3] >> (bit & 7)) & 1:
            return STATUS_SURPLUS
        bit += 1
    return STATUS_OK
