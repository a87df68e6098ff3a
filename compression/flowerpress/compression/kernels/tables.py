"""Bits of the tables of coders; ``coders/table.py`` describes them. Lowest bit of a byte first."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.kernels import (
    STATUS_OK,
    STATUS_RANGE,
    STATUS_STATE,
    STATUS_SURPLUS,
    STATUS_TRUNCATED,
    STATUS_VALUE,
)
from flowerpress.compression.kernels.jit import jit

__all__ = ["LARGEST", "read", "rebuild", "write"]

LARGEST = 15
"""The largest level."""


@jit
def write(
    levels: NDArray[np.int64], extras: NDArray[np.int64], kept: int, out: NDArray[np.uint8]
) -> int:
    """Write a table into zeroed ``out``; return its size in bits.

    At least one level is above 0; ``out`` has 8 bytes for each token, and 16 more.
    """
    tokens = levels.size
    first = 0
    while not levels[first]:
        first += 1
    last = tokens - 1
    while not levels[last]:
        last -= 1
    width = _length(tokens - 1)
    at = 1
    if 2 * (_length(first + 1) + _length(tokens - last)) - 2 <= 2 * width:
        at = _put_gamma(out, at, first)
        at = _put_gamma(out, at, tokens - 1 - last)
    else:
        at = _put(out, 0, 1, 1)
        at = _put(out, at, first, width)
        at = _put(out, at, last, width)
    before = -1
    zeros = 0
    i = first
    while i <= last:
        if zeros == 2:
            run = i
            while not levels[run]:
                run += 1
            at = _put_gamma(out, at, run - i)
            i = run
            zeros = 0
        level = levels[i]
        if before < 0:
            at = _put(out, at, level, 4)
        else:
            at = _put_unary(out, at, abs(level - before))
            if level != before and before > 0:
                at = _put(out, at, 1 if level < before else 0, 1)
        if level:
            at = _put(out, at, extras[i], min(kept, level - 1))
            zeros = 0
        else:
            zeros += 1
        before = level
        i += 1
    return at


@jit
def read(
    data: NDArray[np.uint8], kept: int, levels: NDArray[np.int64], extras: NDArray[np.int64]
) -> tuple[int, int]:
    """Read a table into zeroed ``levels`` and ``extras`` (tokens,); return status and bits read.

    Statuses: truncated; value: a step between levels that is none; surplus: zeros past the end;
    range: first and last token; state: one of them does not occur. What was read before is in the
    arrays in any case.
    """
    tokens = levels.size
    end = 8 * data.size
    width = _length(tokens - 1)
    if end == 0:
        return STATUS_TRUNCATED, 0
    if data[0] & 1:
        first, at = _get(data, end, 1, width)
        last, at = _get(data, end, at, width)
    else:
        first, at = _get_gamma(data, end, 1, tokens - 1)
        if at < 0:
            return -at, 0
        last, at = _get_gamma(data, end, at, tokens - 1)
        last = tokens - 1 - last
    if at < 0:
        return -at, 0
    if not first <= last < tokens:
        return STATUS_RANGE, 0
    before = -1
    zeros = 0
    i = first
    while i <= last:
        if zeros == 2:
            run, at = _get_gamma(data, end, at, last - i)
            if at < 0:
                return -at, 0
            i += run
            zeros = 0
        if before < 0:
            level, at = _get(data, end, at, 4)
        else:
            step, at = _get_unary(data, end, at, LARGEST)
            level = before + step
            if step and before:
                falls, at = _get(data, end, at, 1)
                if falls:
                    level = before - step
        if at < 0:
            return -at, 0
        if level < 0 or level > LARGEST:
            return STATUS_VALUE, 0
        levels[i] = level
        if level:
            extras[i], at = _get(data, end, at, min(kept, level - 1))
            if at < 0:
                return -at, 0
            zeros = 0
        else:
            zeros += 1
        before = level
        i += 1
    if not levels[first] or not levels[last]:
        return STATUS_STATE, 0
    return STATUS_OK, at


@jit
def rebuild(
    levels: NDArray[np.int64], extras: NDArray[np.int64], kept: int, weights: NDArray[np.int64]
) -> None:
    """Set ``weights`` to the middles of the intervals that levels and extras name; 0 where none."""
    for i in range(levels.size):
        weights[i] = 0
        if levels[i]:
            size = min(kept, levels[i] - 1)
            dropped = levels[i] - 1 - size
            weights[i] = (((1 << size) | extras[i]) << dropped) + ((1 << dropped) >> 1)


@jit
def _length(value: int) -> int:
    size = 0
    while value >> size:
        size += 1
    return size


@jit
def _put(out: NDArray[np.uint8], at: int, value: int, size: int) -> int:
    for i in range(size):
        out[(at + i) >> 3] |= ((value >> i) & 1) << ((at + i) & 7)
    return at + size


@jit
def _put_unary(out: NDArray[np.uint8], at: int, value: int) -> int:
    for i in range(at, at + value):
        out[i >> 3] |= 1 << (i & 7)
    return at + value + 1


@jit
def _put_gamma(out: NDArray[np.uint8], at: int, value: int) -> int:
    size = _length(value + 1) - 1
    return _put(out, _put_unary(out, at, size), value + 1 - (1 << size), size)


# Readers return a value and where they stand behind it, or minus a status. Where one failed before,
# they fail alike.


@jit
def _get(data: NDArray[np.uint8], end: int, at: int, size: int) -> tuple[int, int]:
    if at < 0:
        return 0, at
    if at + size > end:
        return 0, -STATUS_TRUNCATED
    value = 0
    for i in range(size):
        value |= ((int(data[(at + i) >> 3]) >> ((at + i) & 7)) & 1) << i
    return value, at + size


@jit
def _get_unary(data: NDArray[np.uint8], end: int, at: int, largest: int) -> tuple[int, int]:
    if at < 0:
        return 0, at
    for value in range(largest + 1):
        i = at + value
        if i >= end:
            return 0, -STATUS_TRUNCATED
        if not (int(data[i >> 3]) >> (i & 7)) & 1:
            return value, i + 1
    return 0, -STATUS_VALUE


@jit
def _get_gamma(data: NDArray[np.uint8], end: int, at: int, largest: int) -> tuple[int, int]:
    size, at = _get_unary(data, end, at, _length(largest + 1) - 1)
    low, at = _get(data, end, at, size)
    if at < 0:
        return 0, at
    value = (1 << size) + low - 1
    if value > largest:
        return 0, -STATUS_SURPLUS
    return value, at
