"""A state folder, kept from everybody else for as long as it is worked in."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from flowerpress.compression.errors import ConfigError
from flowerpress.protos.store.disk import locked

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
    path = folder / "lock"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            lock = locked(path)
        except BlockingIOError:
            refusal = f"{folder}: another {what} works in it; each needs its own --state"
            lock = _waited_for(path, refusal, say)
    except OSError as error:
        raise ConfigError(f"cannot use the state folder {folder}: {error.strerror}") from error
    try:
        with suppress(OSError):  # on a full disk nobody knows for whom to wait, no more
            os.ftruncate(lock, 0)
            os.write(lock, str(os.getpid()).encode())
        yield Claim(folder, lock)
    finally:
        os.close(lock)


def _waited_for(path: Path, refusal: str, say: Callable[[str], None]) -> int:
    """Return the lock when whoever took it and is no more left it; refuse where it still is."""
    if Path("/proc", path.read_text() or "none").exists():
        raise ConfigError(refusal)
    say("waiting for what a killed command left behind to end")
    deadline = time.monotonic() + _ENDING
    while True:
        try:
            return locked(path)
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                raise ConfigError(refusal) from error
        time.sleep(_POLL)
