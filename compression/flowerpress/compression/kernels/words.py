"""Between bytes and the arrays of machine words that kernels read and write.

Bits are numbered from the least significant bit of the first byte. Kernels see them as
little-endian 32-bit words with two words of zeros behind the last, so that a kernel can always
load 64 bits at any bit that exists.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["SLACK", "new_words", "padding_is_zero", "words_from_bytes", "words_to_bytes"]

SLACK = 2


def new_words(bits: int) -> NDArray[np.uint32]:
    """Return an uninitialized array of words with room for ``bits`` bits and the slack."""
    return np.empty((bits + 31) // 32 + SLACK, dtype=np.uint32)


def words_from_bytes(data: memoryview | bytes) -> NDArray[np.uint32]:
    """Copy bytes into words, zero-padded to a whole word and then by the slack."""
    size = len(data)
    words = np.zeros((size + 3) // 4 + SLACK, dtype="<u4")
    words.view(np.uint8)[:size] = np.frombuffer(data, dtype=np.uint8)
    return words.astype(np.uint32, copy=False)


def words_to_bytes(words: NDArray[np.uint32], bits: int) -> bytes:
    """Return the first ``bits`` bits, rounded up to whole bytes."""
    used = words[: (bits + 31) // 32]
    return used.astype("<u4", copy=False).view(np.uint8)[: (bits + 7) // 8].tobytes()


def padding_is_zero(data: memoryview | bytes, bits: int) -> bool:
    """Whether the bits of the last byte behind bit ``bits`` are zero, as all writers leave them."""
    return bits % 8 == 0 or data[bits // 8] >> (bits % 8) == 0
