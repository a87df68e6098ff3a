"""From probabilities and counts to integer frequencies."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["TOTAL", "apportion", "smoothed_histogram", "trimmed"]

TOTAL = 1 << 16
"""What the frequencies of a channel sum to."""

_MOST_BINS = 4096
_TRIM = 1e-5


def apportion(probabilities: NDArray[np.float64]) -> NDArray[np.uint32]:
    """Return frequencies, each at least 1, that sum to 65536.

    Args:
        probabilities: (n,) non-negative, of any positive sum; 1 <= n <= 65536. They are rounded to
            the nearest; what is then missing or too many the most frequent symbols get or give,
            where it changes the length of a code least.

    Raises:
        ValueError: none or too many, negative or NaN, or a sum that is zero or infinite.
    """
    p = np.asarray(probabilities, np.float64)
    _check(p)
    frequencies = np.maximum(np.rint(p / p.sum() * TOTAL), 1).astype(np.int64)
    excess = int(frequencies.sum()) - TOTAL
    while excess:
        most = int(frequencies.argmax())
        # In small portions, so that several frequent symbols share the loss.
        change = -excess if excess < 0 else -min(excess, max(1, int(frequencies[most]) >> 4))
        frequencies[most] += change
        excess += change
    out: NDArray[np.uint32] = frequencies.astype(np.uint32)
    return out


def _check(p: NDArray[np.float64]) -> None:
    if p.ndim != 1 or not 1 <= p.size <= TOTAL:
        raise ValueError(f"a channel has 1 to {TOTAL} symbols, not {p.size}")
    total = p.sum()
    if not (p >= 0).all() or not np.isfinite(total) or not total > 0:
        raise ValueError("probabilities must be finite and not negative, and some positive")


def trimmed(low: int, probabilities: NDArray[np.float64]) -> tuple[int, NDArray[np.float64]]:
    """Return the same with what is too rare for a frequency left to the escape, at both ends.

    A symbol is, if its nearest frequency is 0. At an end of the symbols it would cost tables a byte
    and the others some of theirs, for what an escape does in a few bits more.

    Args:
        low: the first symbol.
        probabilities: (n,), the escape's last; of any sum.

    Raises:
        ValueError: see ``apportion``.
    """
    p = np.asarray(probabilities, np.float64)
    _check(p)
    often = np.flatnonzero(p[:-1] * TOTAL >= 0.5 * p.sum())
    if not often.size:
        return low, p
    first, end = int(often[0]), int(often[-1]) + 1
    rest = p[-1] + p[:first].sum() + p[end:-1].sum()
    return low + first, np.append(p[first:end], rest)


def smoothed_histogram(row: NDArray[np.int32]) -> tuple[int, NDArray[np.float64]]:
    """Return the smallest symbol with a frequency of its own, and weights, the escape's last.

    Every symbol between the outermost two gets half a count (R. Krichevsky and V. Trofimov, IEEE
    Trans. Inf. Theory 27(2), 1981) and the escape one half beside what is cut off: where the
    outermost symbols are more than 4096 apart, the rarest hundred thousandth on either side is.
    """
    if not row.size:
        return 0, np.ones(2)
    low, high = int(row.min()), int(row.max())
    if high - low >= _MOST_BINS:
        ordered = np.sort(row)
        cut = int(_TRIM * row.size)
        low, high = int(ordered[cut]), int(ordered[row.size - 1 - cut])
    if high - low >= _MOST_BINS:  # still: a window around the middle
        middle = int(ordered[row.size // 2])
        low = max(low, middle - _MOST_BINS // 2)
        high = min(high, low + _MOST_BINS - 1)
    inside = row[(row >= low) & (row <= high)].astype(np.int64) - low
    weights = np.bincount(inside, minlength=high - low + 2).astype(np.float64) + 0.5
    weights[-1] += row.size - inside.size
    return low, weights
