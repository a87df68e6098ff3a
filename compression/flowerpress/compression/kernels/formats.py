"""Loops between float32 values and the patterns of smaller number formats.

Values come in groups of ``length`` (the last group may be shorter) that share a scale. Every
``scales`` array has one entry for each group; a group whose scale is zero is coded as zeros.
Nothing here decides anything: what the groups are and where scales come from is up to the stages.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from flowerpress.compression.kernels.jit import jit

__all__ = ["brain", "float8", "half", "integers", "lookup", "nearest", "peaks", "randomized"]

_MAGNITUDE = np.uint32(0x7FFFFFFF)
_STRIP = 1024


@jit
def brain(bits: Any, out: Any) -> None:
    """Round float32 patterns to their upper 16 bits, to nearest even; may carry into infinity."""
    for i in range(bits.size):
        word = bits[i]
        odd = (word >> np.uint32(16)) & np.uint32(1)
        out[i] = (word + np.uint32(0x7FFF) + odd) >> np.uint32(16)


@jit
def half(x: Any, words: Any, out: Any) -> None:
    """Round float32 ``x``, whose patterns are ``words``, to half precision, to nearest even.

    What rounds beyond the largest number becomes the pattern of infinity, or one above it.
    """
    for i in range(x.size):
        sign = (words[i] >> np.uint32(16)) & np.uint32(0x8000)
        word = words[i] & _MAGNITUDE
        odd = (word >> np.uint32(13)) & np.uint32(1)
        rounded = ((word + np.uint32(0xFFF) + odd) >> np.uint32(13)) - np.uint32(112 << 10)
        few = np.uint32(np.rint(min(abs(x[i]), np.float32(1.0)) * np.float32(2.0**24)))
        pattern = rounded if word >= np.uint32(113 << 23) else few
        out[i] = min(pattern, np.uint32(0x7C01)) | sign


@jit
def peaks(bits: Any, length: int, out: Any) -> None:
    """Set ``out`` (uint32) to the pattern of the largest magnitude of each group."""
    for group in range(out.size):
        start = group * length
        stop = min(start + length, bits.size)
        top = np.uint32(0)
        for i in range(start, stop):
            top = max(top, bits[i] & _MAGNITUDE)
        out[group] = top


@jit
def integers(x: Any, scales: Any, length: int, largest: int, out: Any) -> None:
    """Set ``out`` (uint8) to round(x / scale) clipped to +-largest, plus ``largest``."""
    top = np.float32(largest)
    for group in range(scales.size):
        start = group * length
        stop = min(start + length, x.size)
        scale = scales[group] if scales[group] > 0 else np.float32(np.inf)
        for i in range(start, stop):
            level = np.rint(x[i] / scale)
            level = top if level > top else level
            level = -top if level < -top else level
            out[i] = np.uint8(level + top)


@jit
def randomized(x: Any, scales: Any, length: int, largest: int, noise: Any, out: Any) -> None:
    """As ``integers``, rounded up where the fraction of x / scale is above ``noise``.

    ``noise`` (x.size,) float32 is uniform in [0, 1): then the expected level is x / scale.
    """
    top = np.float32(largest)
    for group in range(scales.size):
        start = group * length
        stop = min(start + length, x.size)
        scale = scales[group] if scales[group] > 0 else np.float32(np.inf)
        for i in range(start, stop):
            exact = x[i] / scale
            level = np.floor(exact)
            # The difference is exact; a sum of value and noise would be rounded.
            level += np.float32(exact - level > noise[i])
            level = top if level > top else level
            level = -top if level < -top else level
            out[i] = np.uint8(level + top)


@jit
def float8(x: Any, scales: Any, length: int, mantissa: int, bias: int, top: int, out: Any) -> None:
    """Set ``out`` (uint8) to x / scale as sign, exponent and ``mantissa`` bits, to nearest even.

    ``bias`` is the exponent's; ``top`` is the pattern of the largest magnitude, beyond which
    values saturate.
    """
    strip = np.empty(_STRIP, np.float32)
    words = strip.view(np.uint32)
    shift = np.uint32(23 - mantissa)
    below_half = np.uint32((1 << (22 - mantissa)) - 1)
    normal = np.uint32((128 - bias) << 23)  # the smallest normal number
    rebias = np.uint32((127 - bias) << mantissa)
    per_step = np.float32(2.0 ** (bias - 1 + mantissa))  # steps of subnormals in 1
    highest = np.uint32(top)
    for group in range(scales.size):
        first = group * length
        last = min(first + length, x.size)
        scale = scales[group] if scales[group] > 0 else np.float32(np.inf)
        for start in range(first, last, _STRIP):
            n = min(_STRIP, last - start)
            for i in range(n):
                strip[i] = x[start + i] / scale
            for i in range(n):
                sign = (words[i] >> np.uint32(31)) << np.uint32(7)
                word = words[i] & _MAGNITUDE
                odd = (word >> shift) & np.uint32(1)
                rounded = ((word + below_half + odd) >> shift) - rebias
                few = np.uint32(np.rint(min(abs(strip[i]), np.float32(1.0)) * per_step))
                pattern = rounded if word >= normal else few
                out[start + i] = np.uint8(min(pattern, highest) | sign)


@jit
def nearest(x: Any, scales: Any, length: int, middles: Any, out: Any) -> None:
    """Set ``out`` (uint8) to the number of ``middles`` (ascending) that x / scale is above."""
    strip = np.empty(_STRIP, np.float32)
    counts = np.empty(_STRIP, np.int32)  # as wide as the values, so that comparisons are vectors
    for group in range(scales.size):
        first = group * length
        last = min(first + length, x.size)
        scale = scales[group] if scales[group] > 0 else np.float32(np.inf)
        for start in range(first, last, _STRIP):
            n = min(_STRIP, last - start)
            for i in range(n):
                strip[i] = x[start + i] / scale
                counts[i] = 0
            for j in range(middles.size):
                middle = middles[j]
                for i in range(n):
                    counts[i] += np.int32(strip[i] > middle)
            for i in range(n):
                out[start + i] = np.uint8(counts[i])


@jit
def lookup(levels: Any, table: Any, scales: Any, length: int, out: Any) -> None:
    """Set ``out`` (float32) to table[level] times scale; ``table`` has an entry for any level."""
    for group in range(scales.size):
        start = group * length
        stop = min(start + length, levels.size)
        scale = scales[group]
        for i in range(start, stop):
            out[i] = table[levels[i]] * scale
