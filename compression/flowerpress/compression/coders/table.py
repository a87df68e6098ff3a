"""Tables of small levels, written in few bits: frequencies of rANS, code lengths of Huffman.

A level is a number from 0 (token absent) to 15. In a smooth distribution neighbours have nearly
the same level, so levels are written as differences, at one to three bits a token:

    range     1 bit: 0 = first token and distance of the last from the end in Elias gamma codes,
              1 = first and last token at fixed width; both tokens occur
    first     4 bits
    others    unary |difference|, then its sign (none when the level before is 0: it must rise);
              after two zeros, the number of further zeros in an Elias gamma code comes first
    extra     behind every level above 0: min(kept, level - 1) bits below its leading bit

Unary is ones ended by a zero; an Elias gamma code of n is the unary length of n + 1 less one,
then its bits below the leading one (P. Elias, "Universal codeword sets", 1975).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.errors import FormatError, TruncatedError
from flowerpress.compression.kernels import (
    STATUS_RANGE,
    STATUS_STATE,
    STATUS_SURPLUS,
    STATUS_TRUNCATED,
    STATUS_VALUE,
    tables,
)

__all__ = ["read_levels", "write_levels"]

# Bytes that no token exceeds: a difference of 15, its sign, 14 extra bits and a run of zeros.
_LARGEST_ENTRY = 8
_WRONG = {
    STATUS_VALUE: "has a table with an impossible step",
    STATUS_SURPLUS: "has a table that runs past its end",
    STATUS_RANGE: "has a table whose last token comes before its first, or is none",
    STATUS_STATE: "has a table whose first or last token does not occur",
}


def write_levels(levels: NDArray[np.int64], extras: NDArray[np.int64], kept: int) -> bytes:
    """Return the bytes of a table.

    ``extras[i]`` holds the ``min(kept, level - 1)`` bits of token i. At least one level is above 0.
    """
    out = np.zeros(levels.size * _LARGEST_ENTRY + 16, np.uint8)
    bits = tables.write(levels, extras, kept, out)
    return out[: (bits + 7) // 8].tobytes()


def read_levels(
    data: memoryview, tokens: int, kept: int, field: str
) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Read what :func:`write_levels` wrote at the start of hostile ``data``.

    Returns levels and extras of all ``tokens`` tokens and the number of bytes that they took.
    """
    levels, extras = np.zeros((2, tokens), np.int64)
    source = np.frombuffer(data[: tokens * _LARGEST_ENTRY + 16], np.uint8)
    status, bits = tables.read(source, kept, levels, extras)
    if status == STATUS_TRUNCATED:
        raise TruncatedError(field, "ends inside its table")
    if status:
        raise FormatError(field, _WRONG[status])
    return levels, extras, (bits + 7) // 8
