"""Arrays from an ``.npz`` file, checked before they are read, and never unpickled.

NumPy's own reader allocates what an array's header claims. This one reads the header first (the
``.npy`` format of NEP 1), compares it with what the caller expects, and takes the bytes after.
"""

from __future__ import annotations

import math
import zipfile
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.errors import FormatError
from flowerpress.simulations.tasks.reading import (
    MAX_BYTES,
    expect_end,
    read_exactly,
    refuse_above,
    typed_errors,
)

__all__ = ["read_npz"]

_MAGIC = b"\x93NUMPY\x01\x00"


def read_npz(
    path: Path, shapes: dict[str, tuple[int | None, ...]], limit: int = MAX_BYTES
) -> dict[str, NDArray[Any]]:
    """Return the arrays named in ``shapes`` from the file at ``path``, integers in native order.

    A shape's None is an axis of any size; ``limit`` is the most bytes an array may have. Raises
    TruncatedError, FormatError, LimitError or ChecksumError, whose ``field`` is the file's name
    with, where it can be told, the array's.
    """
    arrays = {}
    with typed_errors(path), zipfile.ZipFile(path) as archive:
        members = {info.filename: info for info in archive.infolist()}
        for key, shape in shapes.items():
            if f"{key}.npy" not in members:
                held = ", ".join(sorted(name.removesuffix(".npy") for name in members)[:8])
                raise FormatError(path.name, f"holds no array {key!r}; it holds: {held or 'none'}")
            # Other methods (LZMA) allocate what the file says before they unpack anything.
            method = members[f"{key}.npy"].compress_type
            if method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise FormatError(f"{path.name}[{key}]", f"is packed by method {method}, not by "
                                  "deflate; write it with numpy.savez_compressed")  # fmt: skip
            with archive.open(members[f"{key}.npy"]) as file:
                arrays[key] = _parse(file, shape, limit, f"{path.name}[{key}]")
    return arrays


def _parse(
    file: IO[bytes], expected: tuple[int | None, ...], limit: int, field: str
) -> NDArray[Any]:
    shape, fortran, dtype = _header(file, field)
    if dtype.kind not in "iu":
        raise FormatError(field, f"is of type {dtype}; integers are expected")
    fits = len(shape) == len(expected) and all(
        size >= 0 and want in (None, size) for size, want in zip(shape, expected, strict=True)
    )
    if fortran or not fits:
        want = ", ".join("N" if size is None else str(size) for size in expected)
        order = " in Fortran order" if fortran else ""
        raise FormatError(field, f"has shape {shape}{order}; ({want}) in C order is expected")
    count = math.prod(shape) * dtype.itemsize
    refuse_above(count, limit, field)
    values = read_exactly(file, count, field)
    expect_end(file, field)
    return values.view(dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)


def _header(file: IO[bytes], field: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    start = read_exactly(file, len(_MAGIC) + 2, field).tobytes()
    if not start.startswith(_MAGIC):
        raise FormatError(field, "is no array in version 1.0 of the .npy format")
    length = start[len(_MAGIC) :]
    text = read_exactly(file, int.from_bytes(length, "little"), field).tobytes()
    try:
        return np.lib.format.read_array_header_1_0(BytesIO(length + text))
    except Exception as error:  # NumPy parses the text as a Python literal: it may fail in any way
        raise FormatError(field, f"its .npy header is not readable: {error}") from error
