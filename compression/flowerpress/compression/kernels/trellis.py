"""Trellis-coded quantization: the sequence of levels with the least distortion plus rate.

Two scalar quantizers share a grid of half steps: quantizer 0 has its even points, quantizer 1 its
odd points and zero. Which one is used next follows from the parity of the levels so far, so an
encoder that looks ahead (the Viterbi algorithm over 8 states) packs space more densely than a
single quantizer can (M. Marcellin and T. Fischer, IEEE Trans. Commun. 38(1), 1990; entropy coded:
T. Fischer and M. Wang, IEEE Trans. Inf. Theory 38(2), 1992; with zero in both quantizers, as in
VVC: H. Schwarz et al., DCC 2019).

The search works on 16 rows side by side. It only decides; what it decides is coded exactly.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.kernels.jit import jit

__all__ = ["magnitudes", "offsets", "search", "to_points", "to_quantizers"]


@jit
def search(
    x: NDArray[np.float32],
    order: NDArray[np.int64],
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    costs: NDArray[np.float32],
    levels: NDArray[np.int32],
) -> None:
    """Write the best ``levels`` (m, n) for ``x`` (m, n), every row a path of its own from state 0.

    Args:
        x: values in whole steps (two half steps).
        order: the rows in the order in which they are taken, 16 at a time; rows of one group
            should be alike, since what a level costs is the same in all of them.
        rows: half-octave of the expected magnitude of each row, (m,).
        columns: likewise of each column, (n,).
        costs: rate times lambda in squared steps, (scales, 5): for quantizer 0 and 1 the cost of
            level zero and of magnitude one, then the cost of one more.
        levels: receives the result; must be zero.
    """
    n = x.shape[1]
    m = order.size
    best = np.zeros(8 * 16, np.float32)
    size = np.zeros(n * 16, np.float32)
    taken = np.zeros(n * 16, np.uint16)
    state = np.zeros(16, np.int64)
    half = np.float32(0.5)
    one = np.float32(1)
    two = np.float32(2)
    none = np.float32(0)
    for base in range(0, m, 16):
        lanes = min(16, m - base)
        scale = np.int64(0)
        for lane in range(lanes):
            row = order[base + lane]
            scale += rows[row]
            for j in range(n):
                size[j * 16 + lane] = x[row, j]
        for lane in range(lanes, 16):
            for j in range(n):
                size[j * 16 + lane] = none
        scale = scale // lanes
        for i in range(128):
            best[i] = np.float32(1e30)
        for i in range(16):
            best[i] = none
        for j in range(n):
            at = j * 16
            which = (scale + columns[j] + 1) >> 1
            rest0 = costs[which, 0]
            one0 = costs[which, 1]
            rest1 = costs[which, 2]
            one1 = costs[which, 3]
            more = costs[which, 4]
            if j & 31 == 31:
                for i in range(16):
                    least = best[i]
                    for s in range(8):
                        best[s * 16 + i] -= least
            for i in range(16):
                a = abs(size[at + i])
                zero0 = rest0 + a * a
                zero1 = rest1 + a * a
                low = np.floor(a)
                parity = low - two * np.floor(low * half)
                even = low + parity
                odd = low + one - parity
                e0 = (a - even) * (a - even) + (one0 + more * (even - one))
                o0 = (a - odd) * (a - odd) + (one0 + more * (odd - one))
                # The odd quantizer's magnitude k lies half a step further in.
                b = a + half
                low = np.floor(b)
                parity = low - two * np.floor(low * half)
                even1 = low + parity
                odd = low + one - parity
                e1 = (b - even1) * (b - even1) + (one1 + more * (even1 - one))
                o1 = (b - odd) * (b - odd) + (one1 + more * (odd - one))
                nothing0 = (even < one) | (zero0 <= e0)
                nothing1 = (even1 < one) | (zero1 <= e1)
                e0 = zero0 if nothing0 else e0
                e1 = zero1 if nothing1 else e1

                s0 = best[i]
                s1 = best[16 + i]
                s2 = best[32 + i]
                s3 = best[48 + i]
                s4 = best[64 + i]
                s5 = best[80 + i]
                s6 = best[96 + i]
                s7 = best[112 + i]
                # State t is reached from s = t2 | (t0 ^ t2) << 1 | b << 2 with parity t1 ^ b; the
                # bits b of all states, and where an even level is zero, go into one number.
                p = s0 + e0
                r = s4 + o0
                bits = one if r < p else none
                best[i] = min(p, r)
                p = s2 + e0
                r = s6 + o0
                bits += np.float32(2) if r < p else none
                best[16 + i] = min(p, r)
                p = s0 + o0
                r = s4 + e0
                bits += np.float32(4) if r < p else none
                best[32 + i] = min(p, r)
                p = s2 + o0
                r = s6 + e0
                bits += np.float32(8) if r < p else none
                best[48 + i] = min(p, r)
                p = s3 + e1
                r = s7 + o1
                bits += np.float32(16) if r < p else none
                best[64 + i] = min(p, r)
                p = s1 + e1
                r = s5 + o1
                bits += np.float32(32) if r < p else none
                best[80 + i] = min(p, r)
                p = s3 + o1
                r = s7 + e1
                bits += np.float32(64) if r < p else none
                best[96 + i] = min(p, r)
                p = s1 + o1
                r = s5 + e1
                bits += np.float32(128) if r < p else none
                best[112 + i] = min(p, r)
                bits += np.float32(256) if nothing0 else none
                bits += np.float32(512) if nothing1 else none
                taken[at + i] = np.uint16(bits)
        for i in range(16):
            state[i] = 0
            for s in range(1, 8):
                if best[s * 16 + i] < best[state[i] * 16 + i]:
                    state[i] = s
        for j in range(n - 1, -1, -1):
            at = j * 16
            for i in range(lanes):
                t = state[i]
                found = np.int64(taken[at + i])
                bit = (found >> t) & 1
                q = t >> 2
                parity = (t >> 1 & 1) ^ bit
                state[i] = q | ((t & 1) ^ q) << 1 | bit << 2
                nothing = (found >> (8 + q)) & (parity ^ 1)
                a = size[at + i]
                low = np.int64(abs(a) + half * np.float32(q))
                level = (low + ((low & 1) ^ parity)) * (1 - nothing)
                levels[order[base + i], j] = level if a >= none else -level


@jit
def magnitudes(
    x: NDArray[np.float32],
    rows: NDArray[np.float32],
    columns: NDArray[np.float32],
    peaks: NDArray[np.float32],
) -> None:
    """Add the magnitudes of ``x`` (m, n) in whole steps to their ``rows`` and ``columns``.

    What is a little below one half becomes zero, since that is what it is likely to get. ``peaks``
    (m,) receives the largest magnitude of each row, not rounded.
    """
    m, n = x.shape
    whole = np.empty(n, np.float32)
    for i in range(m):
        peak = np.float32(0)
        for j in range(n):
            peak = max(peak, abs(x[i, j]))
        peaks[i] = peak
        if peak + np.float32(0.4) < np.float32(1):
            continue
        for j in range(n):
            whole[j] = np.floor(abs(x[i, j]) + np.float32(0.4))
            columns[j] += whole[j]
        total = np.float64(0)
        for j in range(n):
            total += np.float64(whole[j])
        rows[i] += np.float32(total)


@jit
def to_points(
    levels: NDArray[np.int32], trellis: NDArray[np.uint8], points: NDArray[np.int32]
) -> None:
    """Write the points (m, n) of ``levels`` (m, n): 2 |k| - quantizer with the sign, 0 for 0."""
    m, n = levels.shape
    for i in range(m):
        state = np.int64(0)
        for j in range(n):
            k = np.int64(levels[i, j])
            size = abs(k)
            point = 2 * size - (state & 1) if size > 0 else np.int64(0)
            points[i, j] = -point if k < 0 else point
            state = np.int64(trellis[2 * state + (size & 1)])


@jit
def offsets(
    x: NDArray[np.float32],
    levels: NDArray[np.int32],
    trellis: NDArray[np.uint8],
    sums: NDArray[np.float64],
    squares: NDArray[np.float64],
) -> None:
    """Add up how far values lie beyond their points, by the points' magnitude, and squares.

    ``x`` (m, n) in steps; ``sums`` (6, 2): how many and how far, the last row for all magnitudes
    above four; ``squares`` (2,): of the errors and of the values.
    """
    m, n = levels.shape
    for i in range(m):
        state = np.int64(0)
        for j in range(n):
            k = np.int64(levels[i, j])
            value = np.float64(x[i, j])
            squares[1] += value * value
            size = abs(k)
            if size > 0:
                point = 2 * size - (state & 1)
                beyond = (-value if k < 0 else value) - 0.5 * point
                which = np.int64(min(point, 5))
                sums[which, 0] += 1
                sums[which, 1] += beyond
                squares[0] += beyond * beyond
            else:
                squares[0] += value * value
            state = np.int64(trellis[2 * state + (size & 1)])


@jit
def to_quantizers(
    levels: NDArray[np.int32], trellis: NDArray[np.uint8], quantizers: NDArray[np.int32]
) -> None:
    """Write which quantizer, 0 or 1, each of ``levels`` (m, n) belongs to."""
    m, n = levels.shape
    for i in range(m):
        state = np.int64(0)
        for j in range(n):
            quantizers[i, j] = state & 1
            state = np.int64(trellis[2 * state + (abs(np.int64(levels[i, j])) & 1)])
