"""Random rotations: signs from an integer generator, then fast Walsh-Hadamard transforms.

The transform of a chunk of 2^m numbers runs through h = 1, 2, 4, ..., 2^(m-1) and replaces each
pair (x[i], x[i + h]), where i has no bit h, by its sum and its difference. Every number that
results is therefore one fixed tree of float32 additions: the kernel takes two steps at once
(three at first) to pass over memory less often, which changes no bit of it, and neither does the
machine. It is its own inverse up to the factor 2^m.

Signs are the bits of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014, section 4), which is a
function of the seed and a counter, so that chunks can be done in any order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.kernels.jit import jit

__all__ = ["LANES", "dequantize", "quantize", "rotate"]

LANES = 16
"""Sums run in this many lanes, so that additions do not wait for each other."""


@jit
def rotate(x: NDArray[np.float32], chunk: int, first: int, seed: Any, rounds: int) -> None:
    """Rotate every chunk of ``x`` in place, ``rounds`` times signs and transform; or back.

    Args:
        x: flat float32, whole chunks.
        chunk: numbers in a chunk, a power of two from 64 up.
        first: place of ``x[0]`` in the whole; a multiple of 64.
        seed: uint64.
        rounds: above 0, rotate; below, undo that many rounds (but for a factor ``chunk`` each).

    Signs of round t for the elements 64 w to 64 w + 63 are the bits of number 2 w + t, the lowest
    first; a set bit negates.
    """
    bits = x.view(np.uint32)
    one, two, three, four = np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(4)
    five, six, seven, eight = np.uint64(5), np.uint64(6), np.uint64(7), np.uint64(8)
    half, word = np.uint64(32), np.uint64(64)
    top = np.uint32(31)
    size = np.uint64(chunk)
    back = rounds < 0
    turns = np.uint64(-rounds if back else rounds)
    for start in range(np.uint64(0), np.uint64(x.size), size):
        end = start + size
        for step in range(two * turns):
            turn = step >> one
            if back:
                turn = turns - one - turn
            if ((step & one) == np.uint64(0)) != back:
                at = (np.uint64(first) + start) // word
                for i in range(start, end, word):
                    z = seed + (two * at + turn + one) * np.uint64(0x9E3779B97F4A7C15)
                    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
                    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
                    z ^= z >> top
                    at += one
                    low = np.uint32(z & np.uint64(0xFFFFFFFF))
                    high = np.uint32(z >> half)
                    lower, upper = bits[i : i + half], bits[i + half : i + word]
                    for j in range(np.uint32(32)):
                        lower[j] ^= (low >> np.uint32(j)) << top
                    for j in range(np.uint32(32)):
                        upper[j] ^= (high >> np.uint32(j)) << top
                continue
            for i in range(start, end, eight):
                a0, a1, a2, a3 = x[i], x[i + one], x[i + two], x[i + three]
                a4, a5, a6, a7 = x[i + four], x[i + five], x[i + six], x[i + seven]
                b0, b1, b2, b3 = a0 + a1, a0 - a1, a2 + a3, a2 - a3
                b4, b5, b6, b7 = a4 + a5, a4 - a5, a6 + a7, a6 - a7
                a0, a1, a2, a3 = b0 + b2, b1 + b3, b0 - b2, b1 - b3
                a4, a5, a6, a7 = b4 + b6, b5 + b7, b4 - b6, b5 - b7
                x[i], x[i + one], x[i + two], x[i + three] = a0 + a4, a1 + a5, a2 + a6, a3 + a7
                x[i + four], x[i + five] = a0 - a4, a1 - a5
                x[i + six], x[i + seven] = a2 - a6, a3 - a7
            h = eight
            while h < size:
                if (h << one) < size:
                    for i in range(start, end, h << two):
                        p, q = x[i : i + h], x[i + h : i + two * h]
                        r, s = x[i + two * h : i + three * h], x[i + three * h : i + four * h]
                        for j in range(h):
                            b0, b1, b2, b3 = p[j] + q[j], p[j] - q[j], r[j] + s[j], r[j] - s[j]
                            p[j], q[j], r[j], s[j] = b0 + b2, b1 + b3, b0 - b2, b1 - b3
                    h <<= two
                else:
                    for i in range(start, end, h << one):
                        p, q = x[i : i + h], x[i + h : i + two * h]
                        for j in range(h):
                            b0, b1 = p[j], q[j]
                            p[j], q[j] = b0 + b1, b0 - b1
                    h <<= one


@jit
def quantize(
    y: NDArray[np.float32],
    chunk: int,
    kept: int,
    centroids: NDArray[np.float64],
    thresholds: NDArray[np.float32],
    symbols: NDArray[np.uint8],
    sums: NDArray[np.float64],
) -> None:
    """Write the level of the first ``kept`` numbers of every chunk and what scales need.

    Args:
        y: whole chunks; overwritten.
        chunk, kept: numbers in a chunk, and how many of them are sent.
        centroids: the positive ones, ascending, for a variance of one.
        thresholds: between them, one fewer.
        symbols: (chunks * kept,); level ``len(centroids) + i`` stands for plus centroid i.
        sums: (chunks, 3): the chunk's energy, <c, y> and <c, c> over what is kept.
    """
    lanes = np.zeros((2, LANES), np.float64)
    half = np.uint8(centroids.size)
    for number in range(y.size // chunk):
        whole = y[number * chunk : (number + 1) * chunk]
        part = whole[:kept]
        out = symbols[number * kept : (number + 1) * kept]
        lanes[:] = 0.0
        energies = lanes[0]
        for i in range(0, chunk, LANES):
            block = whole[i : i + LANES]
            for j in range(LANES):
                energies[j] += np.float64(block[j]) * np.float64(block[j])
        energy = 0.0
        for j in range(LANES):
            energy += energies[j]
        sums[number, 0] = energy
        # Signs go to the levels at once: what follows sees magnitudes.
        for j in range(kept):
            out[j] = np.uint8(part[j] >= np.float32(0)) << np.uint8(7)
            part[j] = abs(part[j])
        deviation = np.sqrt(energy / chunk)
        for k in range(thresholds.size):
            edge = np.float32(thresholds[k] * deviation)
            for j in range(kept):
                out[j] += np.uint8(part[j] > edge)
        lanes[:] = 0.0
        dots, squares = lanes[0], lanes[1]
        whole_blocks = kept - kept % LANES
        for i in range(0, whole_blocks, LANES):
            block, levels = part[i : i + LANES], out[i : i + LANES]
            for j in range(LANES):
                c = centroids[levels[j] & np.uint8(127)]
                dots[j] += c * np.float64(block[j])
                squares[j] += c * c
        for i in range(whole_blocks, kept):
            c = centroids[out[i] & np.uint8(127)]
            dots[0] += c * np.float64(part[i])
            squares[0] += c * c
        dot, square = 0.0, 0.0
        for j in range(LANES):
            dot += dots[j]
            square += squares[j]
        sums[number, 1] = dot
        sums[number, 2] = square
        for j in range(kept):
            index = out[j] & np.uint8(127)
            out[j] = half + index if out[j] >= np.uint8(128) else half - np.uint8(1) - index


@jit
def dequantize(
    symbols: NDArray[np.uint8],
    levels: NDArray[np.float32],
    chunk: int,
    kept: int,
    y: NDArray[np.float32],
) -> None:
    """Fill chunks of ``y``: the levels that ``symbols`` name, then zeros where none was sent."""
    for number in range(y.size // chunk):
        whole = y[number * chunk : (number + 1) * chunk]
        part = symbols[number * kept : (number + 1) * kept]
        for j in range(kept):
            whole[j] = levels[part[j]]
        whole[kept:] = np.float32(0)
