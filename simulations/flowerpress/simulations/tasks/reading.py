"""Bytes of a data file, never more of them than the reader asked for.

Data files are downloads: their headers are claims. A reader checks a claim against its own limits
first and then takes exactly so many bytes, so that neither a wrong header nor a small file that
unpacks into a huge one can fill the memory.
"""

from __future__ import annotations

import gzip
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.errors import (
    ChecksumError,
    FormatError,
    LimitError,
    TruncatedError,
    WireError,
)

__all__ = ["MAX_BYTES", "expect_end", "read_exactly", "refuse_above", "typed_errors"]

MAX_BYTES = 1 << 30
"""Most bytes that one array of a data file may have: 1 GiB, six times CIFAR-10's."""

_STEP = 1 << 20


def refuse_above(count: int, limit: int, field: str) -> None:
    """Raise LimitError if ``field`` claims more than ``limit`` bytes."""
    if count > limit:
        raise LimitError(field, f"claims {count} bytes; at most {limit} are read")


def read_exactly(file: IO[bytes], count: int, field: str) -> NDArray[np.uint8]:
    """Return the next ``count`` bytes, uint8 (count,); raise TruncatedError if they are not there.

    Memory grows with what the file really holds, not with ``count``.
    """
    parts = bytearray()
    while len(parts) < count:
        part = file.read(min(_STEP, count - len(parts)))
        if not part:
            raise TruncatedError(field, f"ends after {len(parts)} of {count} bytes")
        parts += part
    return np.frombuffer(parts, np.uint8)


def expect_end(file: IO[bytes], field: str) -> None:
    """Raise FormatError if bytes follow; for gzip, this also reads and checks the checksum."""
    if file.read(1):
        raise FormatError(field, "more bytes follow than its header tells of")


@contextmanager
def typed_errors(path: Path) -> Iterator[None]:
    """Turn whatever the system, gzip and zip say about a file into errors that name it."""
    try:
        yield
    except WireError:
        raise
    except EOFError as error:
        raise TruncatedError(path.name, f"the compressed file ends early ({path})") from error
    except (gzip.BadGzipFile, zipfile.BadZipFile, zlib.error) as error:
        raise ChecksumError(path.name, f"damaged: {error}; download it again ({path})") from error
    except (OSError, ValueError, RuntimeError, OverflowError, struct.error) as error:
        # zipfile's words for encryption, versions that it does not know and nonsense offsets; and
        # what the system says when a file may not be read.
        raise FormatError(path.name, f"cannot be read: {error} ({path})") from error
