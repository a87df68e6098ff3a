"""The few primitives that every body is made of: a ``Writer`` and a ``Reader`` that trusts nothing.

Varints are unsigned LEB128 (seven bits a byte, least significant first) below 2**63, in their
shortest form; floats are IEEE 754 single precision, little endian. A blob is a varint length
followed by that many bytes.
"""

from __future__ import annotations

import math
import struct

from flowerpress.compression.errors import FormatError, NonFiniteError, TruncatedError

__all__ = ["VARINT_LIMIT", "Reader", "Writer"]

VARINT_LIMIT = 1 << 63
"""A varint is smaller than this, so that it always fits a signed 64-bit integer."""

_VARINT_BYTES = 10
_F32 = struct.Struct("<f")


class Writer:
    """Collects fields in order; ``getvalue()`` returns their bytes."""

    def __init__(self) -> None:
        self._parts = bytearray()

    def __len__(self) -> int:
        """Bytes written so far."""
        return len(self._parts)

    def u8(self, value: int) -> None:
        """Write an integer in [0, 255] as one byte."""
        if not 0 <= value <= 0xFF:
            raise ValueError(f"u8 takes 0 to 255, not {value}")
        self._parts.append(value)

    def varint(self, value: int) -> None:
        """Write an integer in [0, 2**63) as LEB128: one byte for every seven bits."""
        if not 0 <= value < VARINT_LIMIT:
            raise ValueError(f"varint takes 0 to 2**63 - 1, not {value}")
        while value >= 0x80:
            self._parts.append(value & 0x7F | 0x80)
            value >>= 7
        self._parts.append(value)

    def f32(self, value: float) -> None:
        """Write a finite number, rounded to single precision (four bytes)."""
        try:
            data = _F32.pack(value)
        except OverflowError:
            raise ValueError(f"f32 takes a number within single precision, not {value}") from None
        if not math.isfinite(value):
            raise ValueError(f"f32 takes a finite number, not {value}")
        self._parts += data

    def raw(self, data: bytes | bytearray | memoryview) -> None:
        """Write bytes as they are; the reader must know their number."""
        self._parts += data

    def blob(self, data: bytes | bytearray | memoryview) -> None:
        """Write the number of bytes as a varint, then the bytes."""
        view = memoryview(data)
        self.varint(view.nbytes)
        self._parts += view

    def getvalue(self) -> bytes:
        """All that was written."""
        return bytes(self._parts)


class Reader:
    """Reads fields in order from hostile bytes; ``field`` names them in errors.

    No method allocates more than a constant: byte strings come back as views of the input.
    """

    def __init__(self, data: memoryview | bytes | bytearray, field: str) -> None:
        self._data = memoryview(data).cast("B")
        self._at = 0
        self.field = field

    @property
    def remaining(self) -> int:
        """Bytes not read yet."""
        return len(self._data) - self._at

    def u8(self) -> int:
        """Read one byte as an integer in [0, 255]."""
        if self._at >= len(self._data):
            raise TruncatedError(self.field, "ends where another byte is due")
        value = self._data[self._at]
        self._at += 1
        return value

    def varint(self) -> int:
        """Read a LEB128 integer; ``FormatError`` from 2**63 on and when padded with zeros."""
        value = 0
        for index in range(_VARINT_BYTES):
            byte = self.u8()
            value |= (byte & 0x7F) << (7 * index)
            if byte < 0x80:
                if value >= VARINT_LIMIT:
                    raise FormatError(self.field, "holds an integer of 2**63 or more")
                if byte == 0 and index > 0:
                    raise FormatError(self.field, "holds an integer that is padded with zeros")
                return value
        raise FormatError(self.field, f"holds an integer longer than {_VARINT_BYTES} bytes")

    def f32(self) -> float:
        """Read a single-precision number; ``NonFiniteError`` on NaN and infinity."""
        value: float = _F32.unpack(self.take(_F32.size))[0]
        if not math.isfinite(value):
            raise NonFiniteError(self.field, f"holds {value}")
        return value

    def take(self, n: int) -> memoryview:
        """Read exactly ``n`` bytes, as a view."""
        if n < 0:
            raise ValueError(f"take needs a size of 0 or more, not {n}")
        if n > self.remaining:
            raise TruncatedError(self.field, f"needs {n} bytes and has {self.remaining}")
        view = self._data[self._at : self._at + n]
        self._at += n
        return view

    def blob(self) -> memoryview:
        """Read a varint length and that many bytes, as a view."""
        return self.take(self.varint())

    def rest(self) -> memoryview:
        """Read all that remains, as a view."""
        return self.take(self.remaining)

    def finish(self) -> None:
        """Raise ``FormatError`` unless everything has been read."""
        if self.remaining:
            raise FormatError(self.field, f"{self.remaining} bytes left over after its end")
