"""A state folder, kept from everybody else for as long as it is worked in."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from flowerpress.compression.errors import ConfigError

__all__ = ["Claim", "claimed"]

# What Flower started outlives a killed command for as long as it is given to end well.
_ENDING = 15.0
_POLL = 0.1


@dataclass(frozen=True)
class Claim:
    """A claimed ``folder`` (absolute). Whoever inherits the file descriptor ``lock`` claims it too.

    So the processes at the end of a leash keep the folder until they have ended, also where the
    command that started them was killed.
    """

    folder: Path
    lock: int


@contextmanager
def claimed(folder: Path, what: str, say: Callable[[str], None]) -> Iterator[Claim]:
    """Make the folder (mode 0700) and claim it; two at once would mix their state.

    The claim ends with the processes that have it, however they do. What a killed command left
    behind is waited for. ``what`` names who would be in the way.

    Raises:
        ConfigError: it cannot be made or written to, or another process works in it.
    """
    folder = folder.expanduser().absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = (folder / "lock").open("a+")
    except OSError as error:
        raise ConfigError(f"cannot use the state folder {folder}: {error.strerror}") from error
    with lock:
        if not _locked(lock):
            _wait(lock, f"{folder}: another {what} works in it; each needs its own --state", say)
        with suppress(OSError):  # on a full disk nobody knows for whom to wait, no more
            os.ftruncate(lock.fileno(), 0)
            os.write(lock.fileno(), str(os.getpid()).encode())
        yield Claim(folder, lock.fileno())


def _wait(lock: IO[str], refusal: str, say: Callable[[str], None]) -> None:
    """Wait for the lock where whoever took it is no more; refuse where it still is."""
    lock.seek(0)
    if Path("/proc", lock.read() or "none").exists():
        raise ConfigError(refusal)
    say("waiting for what a killed command left behind to end")
    deadline = time.monotonic() + _ENDING
    while not _locked(lock):
        if time.monotonic() > deadline:
            raise ConfigError(refusal)
        time.sleep(_POLL)


def _locked(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
