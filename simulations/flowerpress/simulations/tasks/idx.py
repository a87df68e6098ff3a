"""The IDX format of MNIST: a magic number, the sizes of the axes, then the bytes.

``00 00 08 d``, d axis sizes as big-endian uint32, then uint8 values in C order (as described on
the page of the MNIST database). 08 means uint8, the only type that MNIST uses and we read.
"""

from __future__ import annotations

import gzip
import math
from pathlib import Path
from typing import IO, cast

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

__all__ = ["read_idx"]

_UINT8 = 8


def read_idx(
    path: Path, shape: tuple[int | None, ...], limit: int = MAX_BYTES
) -> NDArray[np.uint8]:
    """Return the array in ``path``, uint8; a name that ends in .gz is unpacked on the way.

    ``shape`` is what the array must have, None for an axis of any size; ``limit`` is the most
    bytes it may have. Raises TruncatedError, FormatError, LimitError or ChecksumError, whose
    ``field`` is the file's name.
    """
    with typed_errors(path), _open(path) as file:
        return _parse(file, shape, limit, path.name)


def _open(path: Path) -> IO[bytes]:
    if path.suffix == ".gz":
        return cast("IO[bytes]", gzip.open(path, "rb"))
    return path.open("rb")


def _parse(
    file: IO[bytes], shape: tuple[int | None, ...], limit: int, field: str
) -> NDArray[np.uint8]:
    zero1, zero2, kind, axes = read_exactly(file, 4, field).tolist()
    if zero1 or zero2 or kind != _UINT8:
        raise FormatError(
            field, f"starts with {zero1:02x} {zero2:02x} {kind:02x}; an IDX file of uint8 starts "
            "with 00 00 08"
        )  # fmt: skip
    if axes != len(shape):
        raise FormatError(field, f"has {axes} axes; {len(shape)} are expected")
    sizes = tuple(read_exactly(file, 4 * axes, field).view(">u4").tolist())
    if any(want not in (None, size) for size, want in zip(sizes, shape, strict=True)):
        expected = ", ".join("N" if want is None else str(want) for want in shape)
        raise FormatError(field, f"has shape {sizes}; ({expected}) is expected")
    refuse_above(math.prod(sizes), limit, field)
    values = read_exactly(file, math.prod(sizes), field)
    expect_end(file, field)
    return values.reshape(sizes)
