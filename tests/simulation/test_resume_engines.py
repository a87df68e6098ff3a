"""A run of several processes whose command is killed goes on as one that never was.

Its own processes are another matter than where in a commit it was killed, which ``test_resume.py``
tries: here the command itself is killed, while clients train elsewhere.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

SETTINGS = ("--clients", "4", "--uplink", "stc", "--seed", "3", "--workers", "2")
SCRIPT = "from flowerpress.simulations.cli import main; main()"
PATIENCE = 300.0


def simulate(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-P", "-c", SCRIPT, "simulate", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finished(*words: str) -> None:
    with simulate(*words) as process:
        said, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said


def result(folder: Path) -> tuple[bytes, list[dict[str, Any]]]:
    lines = [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]
    for line in lines:
        del line["seconds"]
    return (folder / "model.safetensors").read_bytes(), lines


# Ray's run is given some seconds to end, in which it goes on.
@pytest.mark.parametrize(
    ("engine", "rounds"), [("inline", 6), pytest.param("ray", 60, marks=pytest.mark.slow)]
)
def test_a_command_that_was_killed_goes_on_to_the_same_end(
    engine: str, rounds: int, tmp_path: Path
) -> None:
    settings = (*SETTINGS, "--rounds", str(rounds), f"engine={engine}", "training.max_samples=64")
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    finished(*settings, "--out", str(whole))
    lines, deadline = cut / "rounds.jsonl", time.monotonic() + PATIENCE
    with simulate(*settings, "--out", str(cut)) as process:
        while not lines.exists() or lines.read_text().count("\n") < 3:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=PATIENCE)
    assert process.returncode == -signal.SIGKILL
    assert not (cut / "summary.json").exists(), "it was over before it was killed"
    finished("--resume", *settings, "--out", str(cut))
    assert result(cut) == result(whole)
