"""Signed levels under adaptive contexts: a plane of levels to frequencies and bits, and back.

A *plane* is a matrix of levels, scanned in bands of 8 rows. Inside a band each row runs one column
behind the row above, so that what is above is always known and the rows are chains of dependent
steps that a processor works on side by side:

    row 0   0 1 2 3 4 ...
    row 1     0 1 2 3 ...
    row 2       0 1 2 ...

The context of a level is made from integers that a decoder has, too: averages of the magnitudes to
its left and above, averages of the signs there, and which of the two quantizers the trellis is in.
An average is one byte, its logarithm, and moves by table. Each context keeps counts of 16 symbols;
frequencies are made from them by integer rules whenever a chunk of the scan is complete, so no
table is ever sent.

    symbol 0       level 0
    symbol 2m - 1  magnitude m (1 to 7), sign as expected from the neighbours
    symbol 2m      magnitude m, the other sign
    symbol 15      magnitude 8 or more; the excess and the sign follow as plain bits

In a plane of large magnitudes, their ``low`` lowest bits are plain bits and symbols have the rest.
Symbols and plain bits alike become entries (first slot, frequency) of one interleaved rANS stream:
48-bit states, 16-bit words, 15-bit frequencies (J. Duda, arXiv:1311.2540; F. Giesen,
arXiv:1402.3392).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.kernels import STATUS_OK, STATUS_VALUE
from flowerpress.compression.kernels.jit import jit

__all__ = [
    "CONTEXTS",
    "ROW",
    "SCALES",
    "SIGNS",
    "SYMBOLS",
    "TRELLIS",
    "decode_plane",
    "encode_entries",
    "model_plane",
    "refresh",
]

SYMBOLS = 16
SCALES = 25
SIGNS = 3
CONTEXTS = 2 * SCALES * SIGNS
ROW = 32
"""Distance of two contexts' first slots: 17 of them, and a line of a cache."""

# The 8-state code of G. Ungerboeck (IEEE Trans. Inf. Theory 28(1), 1982, table I: h0 = 13, h1 = 04
# octal) in systematic form. Bit 0 of a state names the quantizer; a level's parity leads from
# state s to TRELLIS[2 s + parity].
TRELLIS = np.array(
    [
        ((s >> 1 ^ s) & 1) | ((s >> 2 ^ parity) & 1) << 1 | (s & 1) << 2
        for s in range(8)
        for parity in (0, 1)
    ],
    np.uint8,
)


@jit
def refresh(
    counts: NDArray[np.uint32], first: NDArray[np.uint16], totals: NDArray[np.int64]
) -> None:
    """Make frequencies out of 32768 from ``counts`` (CONTEXTS * 16,), where they have changed.

    ``first`` (CONTEXTS * ROW,) receives the first slot of each symbol, and 32768 behind them.
    ``totals`` (CONTEXTS,) are the sums at which that was last done. Counts are halved where they
    get large.
    """
    for c in range(totals.size):
        total = np.int64(0)
        for a in range(16):
            total += np.int64(counts[c * 16 + a])
        if total == totals[c]:
            continue
        if total > 1 << 17:
            total = 0
            for a in range(16):
                half = (counts[c * 16 + a] + np.uint32(1)) >> np.uint32(1)
                counts[c * 16 + a] = half
                total += np.int64(half)
        totals[c] = total
        used = np.int64(0)
        best = 0
        for a in range(16):
            used += 1 + np.int64(counts[c * 16 + a]) * 32752 // total
            if counts[c * 16 + a] > counts[c * 16 + best]:
                best = a
        at = np.int64(0)
        for a in range(16):
            first[c * 32 + a] = np.uint16(at)
            at += 1 + np.int64(counts[c * 16 + a]) * 32752 // total
            if a == best:
                at += 32768 - used
        first[c * 32 + 16] = np.uint16(at)


@jit
def plain_entries(
    size: int,
    negative: bool,
    low: int,
    entries: NDArray[np.uint32],
    e: int,
) -> int:
    """Append what follows the symbol of a magnitude in plain bits; return the end."""
    high = size >> low
    if high >= 8:
        excess = high - 7
        width = 0
        while excess >> width > 1:
            width += 1
        entries[e] = np.uint32(min(width, 7) << 27 | 4095)
        e += 1
        if width >= 7:
            entries[e] = np.uint32((width - 7) << 25 | 1023)
            e += 1
        bits = width
        while bits > 0:
            part = min(bits, 15)
            bits -= part
            piece = (excess >> bits) & ((1 << part) - 1)
            entries[e] = np.uint32(piece << (30 - part) | ((1 << (15 - part)) - 1))
            e += 1
    bits = low
    while bits > 0:
        part = min(bits, 15)
        bits -= part
        piece = (size >> bits) & ((1 << part) - 1)
        entries[e] = np.uint32(piece << (30 - part) | ((1 << (15 - part)) - 1))
        e += 1
    if high >= 8 or (high == 0 and size > 0):
        entries[e] = np.uint32(np.int64(negative) << 29 | 16383)
        e += 1
    return e


@jit
def model_plane(
    levels: NDArray[np.int32],
    low: int,
    signs: bool,
    counts: NDArray[np.uint32],
    first: NDArray[np.uint16],
    totals: NDArray[np.int64],
    clock: NDArray[np.int64],
    trellis: NDArray[np.uint8],
    follow: NDArray[np.uint8],
    scales: NDArray[np.uint8],
    entries: NDArray[np.uint32],
    start: int,
) -> int:
    """Append the entries of ``levels`` (m, n) from ``start`` on; return the end, or -1 if full.

    An entry is first << 15 | frequency - 1. ``low`` is the number of plain bits of a magnitude and
    ``signs`` says whether neighbours' signs are looked at. ``follow`` (4 * 256 * 8,) has the
    average after a magnitude by rate, ``scales`` (64 * 64,) the scale by the averages above and to
    the left. ``clock`` holds the number of levels so far and the one at which the frequencies are
    made anew.
    """
    m = np.uint64(levels.shape[0])
    n = np.uint64(levels.shape[1])
    zero = np.uint64(0)
    one = np.uint64(1)
    two = np.uint64(2)
    three = np.uint64(3)
    eight = np.uint64(8)
    e = np.uint64(start)
    room = np.uint64(entries.size - 8 * 16)
    above = np.zeros(n, np.uint8)
    leaning = np.zeros(n, np.int32)
    left = np.zeros(8, np.uint8)
    tilt = np.zeros(8, np.int32)
    state = np.zeros(8, np.uint8)
    seen, due = np.uint64(clock[0]), np.uint64(clock[1])
    shift = np.uint64(low)
    for base in range(zero, m, eight):
        rows = min(eight, m - base)
        for r in range(eight):
            state[r] = 0
            tilt[r] = 0
        for t in range(zero, n + rows - one):
            if e > room:
                return -1
            begin = t - n + one if t >= n else zero
            end = min(rows, t + one)
            for r in range(begin, end):
                j = t - r
                i = base + r
                a = np.uint64(above[j])
                b = np.uint64(left[r])
                near = b if i == zero else a
                s = np.uint64(state[r])
                scale = np.uint64(scales[(near >> two) * np.uint64(64) + (b >> two)])
                c = (np.uint64(25) * (s & one) + scale) * three
                flip = False
                if signs:
                    lean = leaning[j] + tilt[r]
                    flip = lean < 0
                    lean = abs(lean)
                    c += np.uint64(lean > 6) + np.uint64(lean > 24)

                k = levels[i, j]
                size = np.uint64(abs(k))
                high = min(size >> shift, eight)
                symbol = (high << one) - np.uint64(
                    (high > zero) & (((k < 0) == flip) | (high == eight))
                )
                counts[c * np.uint64(16) + symbol] += np.uint32(16)
                at = np.uint32(first[c * np.uint64(32) + symbol])
                after = np.uint32(first[c * np.uint64(32) + symbol + one])
                entries[e] = at << np.uint32(15) | (after - at - np.uint32(1))
                e += one
                if shift > zero or high == eight:
                    e = np.uint64(plain_entries(np.int64(size), k < 0, low, entries, np.int64(e)))

                state[r] = trellis[(s << one) + (size & one)]
                seven = min(high, np.uint64(7))
                # The first rows and columns teach faster.
                slow = min(i, three) * np.uint64(2048) if base == zero else np.uint64(6144)
                fast = min(j, three) * np.uint64(2048) if base == zero else np.uint64(6144)
                above[j] = follow[slow + a * eight + seven]
                left[r] = follow[fast + b * eight + seven]
                if signs and k != 0:
                    mark = np.int32(64 if k > 0 else -64)
                    leaning[j] += (mark - leaning[j]) >> np.int32(3)
                    tilt[r] += (mark - tilt[r]) >> np.int32(3)
            seen += end - begin
            if seen >= due:
                refresh(counts, first, totals)
                due = seen + min(seen, np.uint64(32768))
    clock[0], clock[1] = np.int64(seen), np.int64(due)
    return np.int64(e)


@jit
def encode_entries(
    entries: NDArray[np.uint32], states: NDArray[np.uint64], words: NDArray[np.uint16]
) -> int:
    """Code all entries into the end of ``words``; return the index of the first word used.

    ``states`` (a power of two of lanes) holds the initial states and receives the final ones;
    entry ``i`` is in lane ``i`` modulo their number. A double holds a quotient of 48 by 15 bits
    to the last fraction, so the division is exact.
    """
    lanes = states.size
    pos = words.size
    for i in range(entries.size - 1, -1, -1):
        entry = np.int64(entries[i])
        f = (entry & 32767) + 1
        lane = i & (lanes - 1)
        x = np.int64(states[lane])
        if x >= f << 33:
            pos -= 1
            words[pos] = np.uint16(x & 65535)
            x >>= 16
        quotient = np.int64(np.float64(x) / np.float64(f))
        states[lane] = np.uint64((quotient << 15) + (x - quotient * f) + (entry >> 15))
    return pos


@jit
def plain_size(
    symbol: int,
    low: int,
    words: NDArray[np.uint16],
    states: NDArray[np.uint64],
    cursor: NDArray[np.int64],
) -> int:
    """Read the plain bits that follow a symbol; return 2 * magnitude + sign, or -1 if too large.

    The sign is 0 unless it is among those bits. ``cursor`` holds the next word and the entries so
    far.
    """
    mask = states.size - 1
    available = words.size - 1
    # Width of the excess in one or two parts, the excess, the low bits, the sign.
    high = (symbol + 1) >> 1
    width = 0
    excess = 1
    tail = 0
    sign = 0
    for step in range(5):
        bits = 0
        if step == 0:
            bits = 3 if symbol == 15 else 0
        elif step == 1:
            bits = 5 if width == 7 else 0
        elif step == 2:
            if width > 30:
                return -1
            bits = width
        elif step == 3:
            bits = low
        elif symbol == 15 or (high == 0 and tail > 0):
            bits = 1
        value = 0
        while bits > 0:
            part = min(bits, 15)
            bits -= part
            lane = cursor[1] & mask
            x = np.int64(states[lane])
            slot = x & 32767
            value = value << part | slot >> (15 - part)
            x = (x >> 15 << (15 - part)) + (slot & ((1 << (15 - part)) - 1))
            if x < 1 << 32 and cursor[0] < available:
                x = x << 16 | np.int64(words[cursor[0]])
                cursor[0] += 1
            states[lane] = np.uint64(x)
            cursor[1] += 1
        if step < 2:
            width += value
        elif step == 2:
            excess = 1 << width | value
        elif step == 3:
            tail = value
        else:
            sign = value
    if symbol == 15:
        high = 7 + excess
    size = high << low | tail
    if size >= 1 << 30:
        return -1
    return size << 1 | sign


@jit
def decode_plane(
    words: NDArray[np.uint16],
    states: NDArray[np.uint64],
    cursor: NDArray[np.int64],
    low: int,
    signs: bool,
    counts: NDArray[np.uint32],
    first: NDArray[np.uint16],
    totals: NDArray[np.int64],
    clock: NDArray[np.int64],
    trellis: NDArray[np.uint8],
    follow: NDArray[np.uint8],
    scales: NDArray[np.uint8],
    out: NDArray[np.int32],
) -> int:
    """Fill ``out`` (m, n) with points: a magnitude's place on the half-step grid, and its sign.

    Quantizer 0 has the even points 2 |k| and quantizer 1 the odd ones 2 |k| - 1, and zero. The
    words are hostile: none is taken beyond the last but one, every loop ends, and a magnitude that
    no encoder writes is a status. The last word is there to be looked at and never taken.
    ``cursor`` holds the next word and the entries so far.
    """
    m = np.uint64(out.shape[0])
    n = np.uint64(out.shape[1])
    zero = np.uint64(0)
    one = np.uint64(1)
    two = np.uint64(2)
    three = np.uint64(3)
    eight = np.uint64(8)
    fifteen = np.uint64(15)
    sixteen = np.uint64(16)
    renew = np.uint64(1 << 32)
    available = np.uint64(words.size - 1)
    pos, e = np.uint64(cursor[0]), np.uint64(cursor[1])
    mask = np.uint64(states.size - 1)
    above = np.zeros(n, np.uint8)
    leaning = np.zeros(n, np.int32)
    left = np.zeros(8, np.uint8)
    tilt = np.zeros(8, np.int32)
    state = np.zeros(8, np.uint8)
    seen, due = np.uint64(clock[0]), np.uint64(clock[1])
    plain = low > 0
    status = STATUS_OK
    for base in range(zero, m, eight):
        rows = min(eight, m - base)
        for r in range(eight):
            state[r] = 0
            tilt[r] = 0
        for t in range(zero, n + rows - one):
            begin = t - n + one if t >= n else zero
            end = min(rows, t + one)
            for r in range(begin, end):
                j = t - r
                i = base + r
                a = np.uint64(above[j])
                b = np.uint64(left[r])
                near = b if i == zero else a
                s = np.uint64(state[r])
                q = s & one
                scale = np.uint64(scales[(near >> two) * np.uint64(64) + (b >> two)])
                c = (np.uint64(25) * q + scale) * three
                flip = False
                if signs:
                    lean = leaning[j] + tilt[r]
                    flip = lean < 0
                    lean = abs(lean)
                    c += np.uint64(lean > 6) + np.uint64(lean > 24)

                lane = e & mask
                x = states[lane]
                slot = x & np.uint64(32767)
                table = c * np.uint64(32)
                stop = np.uint64(first[table + one])
                e += one
                slow = min(i, three) * np.uint64(2048) if base == zero else np.uint64(6144)
                fast = min(j, three) * np.uint64(2048) if base == zero else np.uint64(6144)
                if slot < stop and not plain:
                    # Level 0, most of the time.
                    counts[c * sixteen] += np.uint32(16)
                    x = stop * (x >> fifteen) + slot
                    if x < renew and pos < available:
                        x = x << sixteen | np.uint64(words[pos])
                        pos += one
                    states[lane] = x
                    state[r] = trellis[s << one]
                    above[j] = follow[slow + a * eight]
                    left[r] = follow[fast + b * eight]
                    out[i, j] = 0
                    continue
                symbol = np.uint64(slot >= stop) + np.uint64(slot >= np.uint64(first[table + two]))
                if slot >= np.uint64(first[table + three]):
                    more = zero
                    for k in range(three, np.uint64(9)):
                        symbol += np.uint64(slot >= np.uint64(first[table + k]))
                    for k in range(np.uint64(9), sixteen):
                        more += np.uint64(slot >= np.uint64(first[table + k]))
                    symbol += more
                at = np.uint64(first[table + symbol])
                counts[c * sixteen + symbol] += np.uint32(16)
                x = (np.uint64(first[table + symbol + one]) - at) * (x >> fifteen) + slot - at
                if x < renew and pos < available:
                    x = x << sixteen | np.uint64(words[pos])
                    pos += one
                states[lane] = x
                size = (symbol + one) >> one
                high = size
                negative = ((symbol & one) == one) == flip
                if plain or symbol == fifteen:
                    cursor[0], cursor[1] = np.int64(pos), np.int64(e)
                    full = plain_size(np.int64(symbol), low, words, states, cursor)
                    pos, e = np.uint64(cursor[0]), np.uint64(cursor[1])
                    if full < 0:
                        status = STATUS_VALUE
                        full = 0
                    size = np.uint64(full) >> one
                    if symbol == fifteen or high == zero:
                        negative = full & 1 == 1
                    high = min(high, np.uint64(7))

                state[r] = trellis[(s << one) + (size & one)]
                above[j] = follow[slow + a * eight + high]
                left[r] = follow[fast + b * eight + high]
                point = np.int32((size << one) - (q & np.uint64(size > zero)))
                out[i, j] = -point if negative else point
                if signs and size != zero:
                    mark = np.int32(-64 if negative else 64)
                    leaning[j] += (mark - leaning[j]) >> np.int32(3)
                    tilt[r] += (mark - tilt[r]) >> np.int32(3)
            seen += end - begin
            if seen >= due:
                refresh(counts, first, totals)
                due = seen + min(seen, np.uint64(32768))
    clock[0], clock[1] = np.int64(seen), np.int64(due)
    cursor[0], cursor[1] = np.int64(pos), np.int64(e)
    return status
