"""From wide symbols to few tokens: what is worth modelling, and a tail of raw bits.

A table can only hold so many entries, and for small tensors only so few. A split maps every symbol
to a token (coded by a table) and a number of low bits that are stored as they are:

- code 0 to 31: the token is the symbol without its ``code`` lowest bits (0: the symbol itself);
- code 32 + 4 d + m: symbols below 2**d are their own token, larger ones share one with those that
  agree in the highest bit and the m bits below it (0 <= m <= 3, m <= d <= 9).

The second kind is for what spans many magnitudes: gaps, counts, float patterns.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.coders.base import Symbols, width_of
from flowerpress.compression.errors import FormatError
from flowerpress.compression.kernels import bits, rans

__all__ = ["LARGEST_TOKENS", "Split", "candidates", "choose", "histogram", "split_from_wire"]

LARGEST_TOKENS = 1024
_MAGNITUDE = 32
_LARGEST_DIRECT = 9
_HISTOGRAM_BINS = 1 << 16
# What an entry of a table takes, roughly; with this many symbols for each, tables do not matter.
_TABLE_BITS = 4
_PLENTY = 256


@dataclass(frozen=True)
class Split:
    """One way to split the symbols of an alphabet; ``code`` is its byte on the wire."""

    code: int
    tokens: int
    bases: NDArray[np.uint32]
    widths: NDArray[np.uint8]

    @property
    def identity(self) -> bool:
        """Whether tokens are symbols and no tails exist."""
        return self.code == 0

    @property
    def by_magnitude(self) -> bool:
        """Whether the width of a tail depends on its token."""
        return self.code >= _MAGNITUDE

    def tokenize(self, values: Symbols) -> Symbols:
        """Return the token of every value (uint8 up to 256 tokens, uint16 above)."""
        dtype = np.dtype(np.uint8 if self.tokens <= 256 else np.uint16)
        if self.code < _MAGNITUDE:
            shifted = values if self.identity else values >> self.code
            return shifted.astype(dtype, copy=False)
        tokens: Symbols = np.empty(values.size, dtype=dtype)
        bits.tokenize(values, *divmod(self.code - _MAGNITUDE, 4), tokens)
        return tokens

    def tail_bits(self, counts: NDArray[np.int64]) -> int:
        """Bits of all tails together, from the histogram of the tokens."""
        return int(counts @ self.widths.astype(np.int64))


def split_from_wire(code: int, alphabet: int, field: str) -> Split:
    """Return the split that a body names, or ``FormatError`` when no encoder uses it here."""
    split = _split(code, alphabet)
    if split is None:
        raise FormatError(field, f"splits {alphabet} symbols in the unknown way {code}")
    return split


def candidates(alphabet: int) -> list[Split]:
    """The splits that are worth trying for an alphabet, the identity first where it is possible."""
    width = width_of(alphabet)
    first = max(0, width - 10)
    codes = [0, *range(max(1, first), min(first + 4, width))] if first == 0 else []
    if first:
        codes = list(range(first, min(first + 4, width)))
    codes += [
        _MAGNITUDE + 4 * direct + mantissa
        for direct, mantissa in ((0, 0), (2, 1), (3, 2), (4, 3), (6, 3), (8, 2))
        if direct < width
    ]
    return [split for code in codes if (split := _split(code, alphabet)) is not None]


def histogram(tokens: Symbols, bins: int) -> NDArray[np.int64]:
    """Count every token below ``bins``; shape (bins,), int64."""
    counts = np.zeros((4, bins), dtype=np.int64)
    rans.histogram(tokens, counts)
    total: NDArray[np.int64] = counts.sum(axis=0)
    return total


def choose(values: Symbols, alphabet: int) -> tuple[Split, NDArray[np.int64]]:
    """Return the split that should take the fewest bits, and the histogram of its tokens."""
    splits = candidates(alphabet)
    if splits[0].identity and values.size >= _PLENTY * alphabet:
        splits = splits[:1]
    counted = _histograms(values, splits)
    sizes = [_estimate(split, counts) for split, counts in zip(splits, counted, strict=True)]
    best = sizes.index(min(sizes))
    return splits[best], counted[best]


def _estimate(split: Split, counts: NDArray[np.int64]) -> float:
    """Bits of tokens at their entropy, tails and a table of typical size."""
    occurring = counts[counts > 0]
    total = int(occurring.sum())
    tokens = float(total * np.log2(total) - occurring @ np.log2(occurring))
    return tokens + split.tail_bits(counts) + _TABLE_BITS * occurring.size


def _histograms(values: Symbols, splits: list[Split]) -> list[NDArray[np.int64]]:
    """Count the tokens of ``values`` for every split; each has shape (tokens,), int64."""
    top = int(values.max()) + 1
    if top > _HISTOGRAM_BINS:
        return [histogram(split.tokenize(values), split.tokens) for split in splits]
    fine = histogram(values, top)
    symbols = np.flatnonzero(fine).astype(np.uint32)
    fine = fine[symbols]
    return [
        np.bincount(split.tokenize(symbols), weights=fine, minlength=split.tokens).astype(np.int64)
        for split in splits
    ]


@lru_cache(maxsize=256)
def _split(code: int, alphabet: int) -> Split | None:
    width = width_of(alphabet)
    last = alphabet - 1
    if code < _MAGNITUDE:
        tokens = (last >> code) + 1
        if (code and code >= width) or tokens > LARGEST_TOKENS:
            return None
        bases = np.arange(tokens, dtype=np.uint64) << np.uint64(code)
        widths = np.full(tokens, code)
    else:
        direct, mantissa = divmod(code - _MAGNITUDE, 4)
        if not mantissa <= direct <= _LARGEST_DIRECT or direct >= width:
            return None
        exponent = np.arange(direct, width).repeat(1 << mantissa)
        fraction = np.tile(np.arange(1 << mantissa), width - direct)
        above = ((1 << mantissa) + fraction) << (exponent - mantissa)
        bases = np.concatenate([np.arange(1 << direct), above])
        widths = np.concatenate([np.zeros(1 << direct, dtype=np.int64), exponent - mantissa])
        tokens = int(np.searchsorted(bases, last, side="right"))
        if tokens > LARGEST_TOKENS:
            return None
    return Split(code, tokens, bases[:tokens].astype(np.uint32), widths[:tokens].astype(np.uint8))
