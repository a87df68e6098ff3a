"""Calls of the operating system that make bytes last, and an error in words where one fails."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from flowerpress.compression.errors import StorageError

__all__ = ["in_words", "locked", "made", "replace_file", "sync_folder", "write_file"]


@contextmanager
def in_words(doing: str, path: Path) -> Iterator[None]:
    """Turn what the system or SQLite says while ``doing`` something to ``path`` into our error."""
    try:
        yield
    except OSError as error:
        raise StorageError(path, f"cannot {doing} it: {error.strerror or error}") from error
    except sqlite3.Error as error:
        raise StorageError(path, f"cannot {doing} it: {error}") from error


def made(folder: Path, *, sync: bool) -> None:
    """Make ``folder`` and what it stands in, such that they outlast a loss of power."""
    missing = [folder, *folder.parents]
    missing = [path for path in missing if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing if sync else []:
        sync_folder(path.parent)


def locked(path: Path) -> int:
    """Return a descriptor that holds the lock at ``path`` until it is closed.

    Raises:
        BlockingIOError: somebody else holds it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def write_file(path: Path, parts: Iterable[memoryview], *, sync: bool) -> None:
    """Write a new file; what was there is replaced. Its name may still be lost with the power."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        for part in parts:
            left = part
            while left.nbytes:
                left = left[os.write(descriptor, left) :]
        if sync:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, body: bytes) -> None:
    """Make ``body`` the content of a file, whole or not at all, such that it outlasts the power."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        write_file(temporary, [memoryview(body)], sync=True)
        os.replace(temporary, path)  # noqa: PTH105 - the one call that is atomic by contract
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in ``folder`` last."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
