"""A state folder, kept from everybody else for as long as it is worked in."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flowerpress.compression.errors import ConfigError

__all__ = ["claimed"]


@contextmanager
def claimed(folder: Path, what: str) -> Iterator[Path]:
    """Make the folder (mode 0700) and yield its absolute path; two at once would mix their state.

    The lock ends with the process, however that does. ``what`` names who would be in the way.

    Raises:
        ConfigError: it cannot be made or written to, or another process works in it.
    """
    folder = folder.expanduser().absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = (folder / "lock").open("w")
    except OSError as error:
        raise ConfigError(f"cannot use the state folder {folder}: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(
                f"{folder}: another {what} works in it; each needs its own --state"
            ) from error
        yield folder
