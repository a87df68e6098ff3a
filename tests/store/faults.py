"""Ends a process, or fails its writes, at every step of committing to a store; prints the result.

    python -m tests.store.faults kill|fail|full FOLDER FIRST_SEED SEEDS

Every call that changes the disk is counted: those of this package, and those of SQLite, which hands
out the table of system calls that it makes (``sqlite3_vfs.xSetSystemCall``). For each number up to
the last a child process is forked in which that call is the one at which it is killed, or which
fails once. Another process then opens the store and looks at what is in it.
"""

from __future__ import annotations

import _sqlite3
import ctypes
import errno
import json
import logging
import os
import random
import resource
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from flowerpress.compression import StorageError
from flowerpress.protos.store import Snapshot, Store

# Of what the child has committed before, in another process, and of what it commits.
BEFORE, AFTER = 2, 4

Call = Callable[..., Any]


def numbered(number: int, seed: int) -> Snapshot:
    """Return what generation ``number`` holds."""
    rng = np.random.default_rng([number, seed])
    shape = tuple(rng.integers(0, 40, rng.integers(0, 3)))
    arrays = {"w": rng.standard_normal(shape).astype(np.float32)}
    return Snapshot({"number": number}, arrays, {"b": rng.bytes(int(rng.integers(0, 3000)))})


class Faults:
    """Counts calls, and lets the one with number ``at`` go wrong."""

    def __init__(self, at: int, kind: str, rng: random.Random) -> None:
        self.count = 0
        self.in_sqlite = 0
        self._at = at
        self._kind = kind
        self._rng = rng
        self._kept: list[Any] = []

    def due(self) -> bool:
        """Whether this call is to fail; it does not return where the process is to end."""
        self.count += 1
        if self.count != self._at:
            return False
        if self._kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        return True

    def install(self) -> None:
        """Stand in front of the calls of Python and SQLite."""
        for name in ("open", "write", "fsync", "replace", "mkdir", "unlink"):
            setattr(os, name, self._in_python(name, getattr(os, name)))
        library = ctypes.CDLL(_sqlite3.__file__)
        library.sqlite3_vfs_find.restype = ctypes.c_void_p
        place = library.sqlite3_vfs_find(None)
        table = ctypes.cast(place, ctypes.POINTER(ctypes.c_void_p))
        pointer = ctypes.sizeof(ctypes.c_void_p)
        # Three ints (and padding), then pointers: the 17th and 18th set and get system calls.
        start = 16 // pointer
        set_call, get_call = table[start + 16], table[start + 17]
        text, long = ctypes.c_char_p, ctypes.c_int64
        change = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, text, ctypes.c_void_p)(set_call)
        find = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, text)(get_call)
        kinds = {
            b"open": (ctypes.c_int, text, ctypes.c_int, ctypes.c_int),
            b"write": (ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t),
            b"pwrite": (ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, long),
            b"pwrite64": (ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, long),
            b"ftruncate": (ctypes.c_int, ctypes.c_int, long),
            b"unlink": (ctypes.c_int, text),
        }
        for call, (result, *arguments) in kinds.items():
            address = find(place, call)
            if address:
                shape = ctypes.CFUNCTYPE(result, *arguments, use_errno=True)
                own = shape(self._in_sqlite(shape(address)))
                self._kept.append(own)
                change(place, call, ctypes.cast(own, ctypes.c_void_p))

    def _in_python(self, name: str, call: Call) -> Call:
        def counted(*arguments: Any, **more: Any) -> Any:
            if name == "open" and not arguments[1] & os.O_CREAT:
                return call(*arguments, **more)
            if name == "write" and self.count + 1 == self._at:  # a part of it may have arrived
                call(arguments[0], arguments[1][: self._rng.randint(0, len(arguments[1]))])
            if self.due():
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return call(*arguments, **more)

        return counted

    def _in_sqlite(self, call: Call) -> Call:
        def counted(*arguments: Any) -> Any:
            self.in_sqlite += 1
            if self.due():
                ctypes.set_errno(errno.ENOSPC)
                return -1
            return call(*arguments)

        return counted


def commit_all(folder: Path, seed: int, done: int) -> None:
    """Commit one generation after the other, and say after each which one is done.

    An error of the one tree is forgiven once for each step: what failed must work then.
    """
    for attempt in range(2):
        try:
            with Store(folder) as store:
                for number in range(BEFORE + 1, AFTER + 1):
                    try:
                        store.commit(numbered(number, seed))
                    except StorageError:
                        store.commit(numbered(number, seed))
                    os.pwrite(done, bytes([number]), 0)
        except StorageError:
            if attempt:
                raise
        else:
            return


def forked(folder: Path, seed: int, prepare: Callable[[], Faults | None]) -> list[int]:
    """Commit in a child process.

    Returns:
        its exit status, the last number that was done, and how many calls were counted to its end:
        in all, and in SQLite.
    """
    scratch = os.memfd_create("done")
    os.pwrite(scratch, bytes([BEFORE, 0, 0]), 0)
    process = os.fork()
    if not process:
        status = 0
        try:
            faults = prepare()
            commit_all(folder, seed, scratch)
            if faults:
                os.pwrite(scratch, bytes([faults.count, faults.in_sqlite]), 1)
        except StorageError:
            status = 3
        except BaseException as error:  # noqa: BLE001 - whatever is not in the tree is reported
            print(f"not in the tree: {error!r}", file=sys.stderr, flush=True)
            status = 4
        finally:
            os._exit(status)
    _, code = os.waitpid(process, 0)
    found = os.pread(scratch, 3, 0)
    os.close(scratch)
    return [os.waitstatus_to_exitcode(code), *found]


def holds(found: Snapshot | None, number: int, seed: int) -> bool:
    """Whether a snapshot is the one of a number."""
    due = numbered(number, seed)
    return (
        found is not None
        and (found.facts, found.blobs) == (due.facts, due.blobs)
        and np.array_equal(found.arrays["w"], due.arrays["w"])
    )


def judged(folder: Path, seed: int, done: int, *, going_on: bool) -> str:
    """Return what is wrong with the store: it must hold the last commit that was done, or the next.

    Loading it must work, and so must ``going_on``. Nothing wrong: an empty text.
    """
    try:
        with Store(folder) as store:
            found = store.load()
            if not any(holds(found, number, seed) for number in (done, done + 1)):
                return f"after {done} there is {None if found is None else dict(found.facts)}"
            if not going_on:
                return ""
            store.commit(Snapshot({"more": True}))
            after = store.load()
        return "" if after is not None and after.facts == {"more": True} else "cannot go on"
    except StorageError as error:
        return f"cannot be loaded: {error}"


def explored(kind: str, folder: Path, seed: int) -> dict[str, Any]:
    """Let every call go wrong in turn; return the number of calls and what was wrong."""
    wrong: list[str] = []
    begin = folder / "begin"
    with Store(begin) as store:
        for number in range(1, BEFORE + 1):
            store.commit(numbered(number, seed))
    steps = range(0, 20_000, 512) if kind == "full" else range(1, 1000)
    tried, hit, calls, in_sqlite = 0, 0, 0, 0
    for step in steps:
        work = folder / "work"
        shutil.copytree(begin, work)

        def prepare(step: int = step) -> Faults | None:
            if kind == "full":
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (step, step))
                return None
            faults = Faults(step, kind, random.Random(seed * 1000 + step))
            faults.install()
            return faults

        status, done, calls, in_sqlite = forked(work, seed, prepare)
        tried += 1
        allowed = {"kill": (0, -signal.SIGKILL), "fail": (0,), "full": (0, 3)}[kind]
        if status not in allowed:
            wrong.append(f"step {step}: it ended with {status}")
        if problem := judged(work, seed, done, going_on=(step + seed) % 3 == 0):
            wrong.append(f"step {step}: {problem}")
        shutil.rmtree(work)
        hit += status != 0
        if kind != "full" and not status and calls < step:
            break  # there is no such call any more
    shutil.rmtree(begin)
    return {"tried": tried, "hit": hit, "calls": calls, "sqlite": in_sqlite, "wrong": wrong}


def main() -> None:
    """Explore as the command line says."""
    kind, folder, first, seeds = sys.argv[1:]
    logging.disable(logging.CRITICAL)
    numbers = range(int(first), int(first) + int(seeds))
    print(json.dumps([explored(kind, Path(folder), seed) for seed in numbers]))


if __name__ == "__main__":
    main()
