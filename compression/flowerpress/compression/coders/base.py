"""What a coder is, and the checks that all of them share.

The receiver knows how many symbols it wants and how large their alphabet is; neither is in the
body. What it does not know is whether the body means well: a decoder allocates no more than a
fixed multiple of ``count``, consumes the body exactly, and raises a ``WireError`` or succeeds.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.errors import FormatError, TruncatedError
from flowerpress.compression.kernels import (
    STATUS_OK,
    STATUS_RANGE,
    STATUS_SURPLUS,
    STATUS_TRUNCATED,
)
from flowerpress.compression.kernels.words import padding_is_zero

__all__ = [
    "LARGEST_ALPHABET",
    "Coder",
    "Symbols",
    "check_bits",
    "check_status",
    "narrow",
    "symbol_dtype",
    "width_of",
]

LARGEST_ALPHABET = 1 << 32

Symbols: TypeAlias = NDArray[np.unsignedinteger[Any]]
"""uint8, uint16 or uint32, whichever is the smallest that holds the alphabet; one dimension."""


def symbol_dtype(alphabet: int) -> np.dtype[np.unsignedinteger[Any]]:
    """Return the smallest of uint8, uint16 and uint32 that holds 0 to ``alphabet - 1``."""
    if not 1 <= alphabet <= LARGEST_ALPHABET:
        raise ValueError(f"an alphabet has 1 to 2**32 symbols, not {alphabet}")
    if alphabet <= 1 << 8:
        return np.dtype(np.uint8)
    return np.dtype(np.uint16 if alphabet <= 1 << 16 else np.uint32)


def width_of(alphabet: int) -> int:
    """Bits that a symbol takes at fixed width: ceil(log2 alphabet)."""
    return (alphabet - 1).bit_length()


def narrow(symbols: NDArray[np.integer[Any]], alphabet: int) -> Symbols:
    """Return ``symbols`` flat and contiguous in the alphabet's dtype; ``ValueError`` if unfit."""
    dtype = symbol_dtype(alphabet)
    if symbols.dtype.kind not in "ui":
        raise ValueError(f"coders take integers, not {symbols.dtype}")
    flat = symbols.reshape(-1)
    if flat.size and (int(flat.min()) < 0 or int(flat.max()) >= alphabet):
        raise ValueError(
            f"symbols must lie in [0, {alphabet}); these span [{flat.min()}, {flat.max()}]"
        )
    values = np.ascontiguousarray(flat, dtype=dtype)
    # Kernels are compiled for writable arrays only: a read-only type would be compiled once more.
    return values if values.flags.writeable and values.flags.aligned else values.copy()


class Coder(ABC):
    """A lossless code for integers in [0, alphabet).

    ``tag`` goes over the wire and is never given to another coder, ``name`` is what users write.
    """

    tag: ClassVar[int]
    name: ClassVar[str]
    largest: ClassVar[int] = LARGEST_ALPHABET  # the most symbols that an alphabet may have

    @property
    def field(self) -> str:
        """How errors name a body of this coder."""
        return f"{self.name} body"

    def encode(self, symbols: NDArray[np.integer[Any]], alphabet: int) -> bytes:
        """Return a body from which ``decode`` restores ``symbols`` (any shape, taken row by row).

        ``ValueError`` when a symbol is outside [0, alphabet) or the array holds no integers.
        """
        values = narrow(symbols, alphabet)
        return self._encode(values, alphabet) if values.size and alphabet > 1 else b""

    def decode(self, body: memoryview | bytes, count: int, alphabet: int) -> Symbols:
        """Return ``count`` symbols, one dimension, in :func:`symbol_dtype` of the alphabet.

        ``count`` and ``alphabet`` are the receiver's own. ``TruncatedError`` when the body ends too
        early, ``FormatError`` when it is anything else that ``encode`` cannot have written.
        """
        dtype = symbol_dtype(alphabet)
        if count < 0:
            raise ValueError(f"a count is 0 or more, not {count}")
        body = memoryview(body).cast("B")
        if count == 0 or alphabet == 1:
            if len(body):
                raise FormatError(self.field, f"{len(body)} bytes for symbols that need none")
            return np.zeros(count, dtype=dtype)
        if not len(body):
            raise TruncatedError(self.field, f"is empty and should hold {count} symbols")
        symbols = self._decode(body, count, alphabet)
        if alphabet <= np.iinfo(dtype).max and int(symbols.max()) >= alphabet:
            raise FormatError(self.field, f"holds symbol {symbols.max()} of {alphabet}")
        return symbols

    @abstractmethod
    def _encode(self, values: Symbols, alphabet: int) -> bytes:
        """Code at least one value; alphabet is at least 2."""

    @abstractmethod
    def _decode(self, body: memoryview, count: int, alphabet: int) -> Symbols:
        """Decode at least one symbol of at least two from a body that is not empty.

        The caller checks that no symbol is outside the alphabet.
        """


def check_bits(body: memoryview, bits: int, field: str) -> None:
    """Raise unless ``body`` is exactly ``bits`` bits, padded with zeros to a whole byte."""
    size = (bits + 7) // 8
    if len(body) < size:
        raise TruncatedError(field, f"needs {size} bytes and has {len(body)}")
    if len(body) > size:
        raise FormatError(field, f"{len(body) - size} bytes left over after its end")
    if not padding_is_zero(body, bits):
        raise FormatError(field, "has bits set behind its end")


def check_status(status: int, field: str) -> None:
    """Turn the status of a kernel into an error."""
    if status == STATUS_OK:
        return
    if status == STATUS_TRUNCATED:
        raise TruncatedError(field, "ends before its last symbol")
    if status == STATUS_SURPLUS:
        raise FormatError(field, "goes on after its last symbol")
    if status == STATUS_RANGE:
        raise FormatError(field, "holds a symbol outside its alphabet")
    raise FormatError(field, "does not end in the state in which coding starts")
