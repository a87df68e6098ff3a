"""A file that appears whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from flowerpress.compression import ConfigError

__all__ = ["check_room", "written_whole"]


def check_room(path: Path, size: int) -> None:
    """Refuse what the disk cannot hold before any work is done.

    A packed file of a few bytes may stand for gigabytes of zeros, or say that it does.

    Raises:
        ConfigError: fewer than ``size`` bytes are free where ``path`` is to be.
    """
    try:
        free = shutil.disk_usage(path.parent).free
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror or error}") from error
    if size > free:
        raise ConfigError(f"cannot write {path}: it takes {size:,} bytes, and {free:,} are free")


@contextmanager
def written_whole(path: Path, *, force: bool) -> Iterator[BinaryIO]:
    """Open a stream that becomes ``path`` when the block ends, and leaves nothing if it fails.

    Args:
        path: the file; its folder must exist.
        force: whether a file that is there already may be replaced.

    Raises:
        ConfigError: there is a file and ``force`` is not set, or the place cannot be written to.
    """
    if path.exists() and not path.is_file():
        raise ConfigError(f"{path}: is no file; name one with -o")
    if path.exists() and not force:
        raise ConfigError(
            f"{path}: is there already; choose another with -o, or replace it: --force"
        )
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with temporary.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)
