"""A process that starts another and leaves nothing of it behind: ``python -m ....leash COMMAND``.

Flower's SuperLink starts a launcher, that starts the simulation, that starts Ray with a dozen
processes, most of them in sessions of their own. Whoever holds the other end of this process's
standard input holds them all: when it closes (a normal end, an error, even ``kill -9``) or on
SIGTERM, the command is asked to end, and a few seconds later it and all that it started are killed.

On Linux orphans are adopted by this process, so that none escapes by losing its parent. Elsewhere
only the command's own process group is ended.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

__all__ = ["main"]

_GRACE = 5.0
_PR_SET_CHILD_SUBREAPER = 36


def main(command: list[str]) -> int:
    """Run ``command`` until it ends or standard input does; return its exit code."""
    # Ctrl-C goes to the whole foreground group; whoever holds the leash decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    # Supervisors and `timeout` may ask a whole group to end, this process among it.
    signal.signal(signal.SIGTERM, lambda *_: _in_background(_end, process))
    _in_background(_wait_for_end_of_input, process)
    code = process.wait()
    _kill_all(process.pid)
    return code


def _in_background(
    function: Callable[[subprocess.Popen[bytes]], None], process: subprocess.Popen[bytes]
) -> None:
    threading.Thread(target=function, args=(process,), daemon=True).start()


def _wait_for_end_of_input(process: subprocess.Popen[bytes]) -> None:
    while os.read(0, 4096):
        pass
    _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_GRACE)
    except subprocess.TimeoutExpired:
        process.kill()


def _kill_all(group: int) -> None:
    """Kill every descendant of this process, again until there is none."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)
    for _ in range(100):
        alive = _descendants()
        for pid in alive:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        # Adopted children that have died stay in the table until they are collected.
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not alive:
            return
        time.sleep(0.02)


def _descendants() -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        # pid (name, which may hold anything) state parent ...
        with suppress(OSError, ValueError):
            parent = int(entry.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.parent.name))
    found: list[int] = []
    level = [os.getpid()]
    while level:
        level = [child for pid in level for child in children.get(pid, [])]
        found += level
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
