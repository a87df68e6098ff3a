"""Averages of magnitudes as one byte each, and the tables by which they move.

Byte 0 is an average of zero, byte s one of 2**((s - 1) / 20) / 512. All tables are made with
integers or with correctly rounded decimals, so they are the same on every machine.
"""

from __future__ import annotations

from decimal import Context, Decimal
from functools import cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["follow", "scales"]

_STEPS = 20  # per octave
_UNIT = 512  # an average of one
_MAGNITUDES = 8
_BITS = 24
_STATES = 1 + 1 + _STEPS * 11 + 17  # up to an average of seven


@cache
def _values() -> NDArray[np.int64]:
    """Return the averages of all states, one being ``512 << 24``."""
    context = Context(prec=30)
    return np.array(
        [0]
        + [
            int(context.power(Decimal(2), Decimal(s) / _STEPS) * (1 << _BITS))
            for s in range(_STATES - 1)
        ],
        np.int64,
    )


def _nearest(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the state next to each average."""
    known = _values()
    middles = (known[1:] + known[:-1]) // 2
    return np.searchsorted(middles, values, side="right")


@cache
def follow() -> NDArray[np.uint8]:
    """Return the state after a magnitude, flat (4, 256, 8): by rate 1/2, 1/4, 1/8, 1/16.

    The four rates are for the first, second, third and all later magnitudes of an average.
    """
    known = _values()
    out = np.zeros((4, 256, _MAGNITUDES), np.uint8)
    for rate in range(4):
        for magnitude in range(_MAGNITUDES):
            target = magnitude * _UNIT << _BITS
            moved = known + ((target - known) >> (rate + 1))
            out[rate, : known.size, magnitude] = _nearest(moved)
    return out.reshape(-1)


@cache
def scales(row_weight: int) -> NDArray[np.uint8]:
    """Return the scale, a half-octave, by the averages above and to the left, flat (64, 64).

    Both come without their two lowest bits. Between the logarithm of their weighted mean
    (``row_weight`` of 16 for the left) and the mean of their logarithms: the first is right where
    rows and columns add to what is expected, the second where they multiply.
    """
    known = _values()
    cells = np.minimum(np.arange(64) * 4 + 2, known.size - 1)
    cells[0] = 1
    above, left = known[cells][:, None], known[cells][None, :]
    both = (row_weight * left + (16 - row_weight) * above) >> 4
    return ((_log(above) + _log(left) + 2 * _log(both) + 2) >> 2).astype(np.uint8).reshape(-1)


def _log(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return 1 + floor(2 log2 v) of averages in 1/512, 0 below one."""
    whole = values >> _BITS
    bits = np.array([(int(v) ** 2).bit_length() for v in whole.reshape(-1)], np.int64)
    return bits.reshape(values.shape)
