"""SIGKILL and failing writes at every call with which a commit changes the disk: see faults.py."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: no test here turns the power off."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as name:
        yield Path(name)


def explored(kind: str, folder: Path, seeds: int) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.store.faults", kind, str(folder), "1", str(seeds)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "not in the tree" not in done.stderr, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    assert [problem for each in found for problem in each["wrong"]] == []
    return found


def test_a_process_that_is_killed_at_any_step_leaves_the_old_or_the_new(folder: Path) -> None:
    found = explored("kill", folder, seeds=20)
    assert len(found) == 20
    for each in found:
        # Every call but those after the last: the process ended where it was told to.
        assert each["hit"] == each["tried"] - 1 == each["calls"]
        # At least its rollback journal, two pages and their synchronization, twice.
        assert each["sqlite"] >= 10
        assert each["calls"] - each["sqlite"] >= 10


def test_every_write_may_fail_once(folder: Path) -> None:
    """The error is one of ours, the same commit works the next time, and nothing is lost."""
    for each in explored("fail", folder, seeds=3):
        assert each["hit"] == 0
        assert each["tried"] > each["sqlite"] >= 10


def test_a_disk_that_is_full_at_any_size(folder: Path) -> None:
    (found,) = explored("full", folder, seeds=1)
    # Where nothing fits the error is ours (exit status 3), where all fits there is none.
    assert 0 < found["hit"] < found["tried"]


@pytest.mark.slow
def test_other_sizes_fail_alike(folder: Path) -> None:
    explored("fail", folder, seeds=50)
