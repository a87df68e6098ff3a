"""The command line as a function, and two folders that most tests here look at."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from flowerpress.simulations.cli import main

SMALL = ("--rounds", "2", "--clients", "3")


@dataclass(frozen=True)
class Said:
    """How a command ended: exit status, standard output, standard error."""

    code: int
    out: str
    err: str


def command(*words: object, columns: int = 80, **variables: str) -> Said:
    """Run the command line in this process, on a "terminal" of that width."""
    out, err = io.StringIO(), io.StringIO()
    environment = {**os.environ, "COLUMNS": str(columns), **variables}
    for name in ("FLOWERPRESS_DATA", "FORCE_COLOR"):
        if name not in variables:
            environment.pop(name, None)
    flower = logging.getLogger("flwr")
    filters = list(flower.filters)
    code: Any = 0
    try:
        with (
            mock.patch.object(sys, "argv", ["flowerpress", *map(str, words)]),
            mock.patch.dict(os.environ, environment, clear=True),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            main()
    except SystemExit as end:
        code = end.code
    finally:
        flower.filters[:] = filters
    return Said(code or 0, out.getvalue(), err.getvalue())


@pytest.fixture
def flowerpress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Said]:
    """Return the command line; the current folder is an empty one."""
    monkeypatch.chdir(tmp_path)
    return command


@pytest.fixture(scope="session")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Said]:
    """Return the folder of a small run, and what its command said."""
    folder = tmp_path_factory.mktemp("simulated") / "run"
    return folder, command("simulate", *SMALL, "--uplink", "int8", "--out", folder)


@dataclass(frozen=True)
class Comparison:
    """A comparison that was stopped by Ctrl-C, and made again to its end."""

    folder: Path
    words: tuple[str, ...]
    stopped: Said
    left_alive: list[int]
    kept: dict[str, tuple[int, int]]
    again: Said


@pytest.fixture(scope="session")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """Compare two codecs with two seeds: stopped after the first run, then to the end."""
    folder = tmp_path_factory.mktemp("compared") / "all"
    words = ("compare", "--codecs", "none,stc/int8", "--seeds", "2", *SMALL, "--out", str(folder))
    # Whoever runs these tests in the background may have told them to ignore Ctrl-C.
    script = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from flowerpress.simulations.cli import main; main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    seen = ""
    for line in process.stdout:
        seen += line
        if line.startswith("none seed 1"):
            break
    children = [
        int(pid)
        for path in Path(f"/proc/{process.pid}/task").glob("*/children")
        for pid in path.read_text().split()
    ]
    process.send_signal(2)
    out, err = process.communicate(timeout=60)
    stopped = Said(process.returncode, seen + out, err)
    assert children, "no worker was seen; this test looks for them in /proc"
    left_alive = [pid for pid in children if _alive(pid)]
    kept = stamps(folder / "none" / "seed-0")
    return Comparison(folder, words, stopped, left_alive, kept, command(*words))


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """Return inode and time of change of every file."""
    found = {path.name: path.stat() for path in folder.iterdir()}
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in found.items()}


def _alive(pid: int) -> bool:
    for _ in range(50):
        if not Path(f"/proc/{pid}").exists():
            return False
        time.sleep(0.1)
    return True
