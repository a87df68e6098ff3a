"""Zstandard over whole-byte symbols: for data that repeats itself.

The frame carries no magic number, checksum or dictionary. It always declares its content size,
and a decoder compares that with the size it expects before it decompresses anything, because
python-zstandard allocates what a frame declares, whatever bound it is given.
"""

from __future__ import annotations

import numpy as np
import zstandard

from flowerpress.compression.coders.base import Coder, Symbols, symbol_dtype
from flowerpress.compression.errors import FormatError

__all__ = ["Zstd"]

# On quantized noise level 1 is smaller than level 3, whose short matches cost more than they save.
_LEVEL = 1
_FORMAT = zstandard.FORMAT_ZSTD1_MAGICLESS


class Zstd(Coder):
    """Zstandard (RFC 8878) at level 1 of the smallest whole-byte integers, little endian."""

    tag = 3
    name = "zstd"

    def _encode(self, values: Symbols, alphabet: int) -> bytes:
        data = values.astype(values.dtype.newbyteorder("<"), copy=False)
        parameters = zstandard.ZstdCompressionParameters.from_level(
            _LEVEL,
            source_size=data.nbytes,
            format=_FORMAT,
            write_checksum=False,
            write_content_size=True,
            write_dict_id=False,
        )
        return zstandard.ZstdCompressor(compression_params=parameters).compress(data.data)

    def _decode(self, body: memoryview, count: int, alphabet: int) -> Symbols:
        dtype = symbol_dtype(alphabet)
        size = count * dtype.itemsize
        try:
            frame = zstandard.get_frame_parameters(body, format=_FORMAT)
            if frame.content_size != size:
                raise FormatError(self.field, f"declares {frame.content_size} bytes, not {size}")
            if frame.dict_id:
                raise FormatError(self.field, f"asks for dictionary {frame.dict_id}")
            data = zstandard.ZstdDecompressor(format=_FORMAT).decompress(
                body, max_output_size=size, allow_extra_data=False
            )
        except zstandard.ZstdError as error:
            raise FormatError(self.field, f"cannot be decompressed ({error})") from error
        if len(data) != size:
            raise FormatError(self.field, f"holds {len(data)} bytes, not {size}")
        symbols: Symbols = np.frombuffer(data, dtype=dtype.newbyteorder("<")).astype(dtype)
        return symbols
