"""Flower's own engine gives what the embedded one gives, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from flowerpress.simulations.config import SimulationConfig, load_config
from flowerpress.simulations.engines import EngineError, run
from flowerpress.simulations.engines.ray import FlowerLink
from flowerpress.simulations.record import RoundRecord, read_run

pytest.importorskip("ray")

MARK = "FLOWERPRESS_TEST_MARK"

FAILING = """
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

client = ClientApp()
server = ServerApp()

@server.main()
def main(grid, context):
    raise RuntimeError("the roof is on fire")
"""


@pytest.fixture
def mark(monkeypatch: pytest.MonkeyPatch) -> str:
    """Put a word into the environment that every process started from here inherits."""
    word = f"{MARK}={uuid.uuid4().hex}"
    monkeypatch.setenv(*word.split("="))
    return word


def marked(word: str) -> list[str]:
    """Return the command lines of the processes that carry the mark, this one left out."""
    found = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            if word.encode() in environ.read_bytes() and environ.parent.name != str(os.getpid()):
                found.append((environ.parent / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


def timeless(records: list[RoundRecord]) -> list[RoundRecord]:
    return [replace(record, seconds=0.0) for record in records]


@pytest.mark.parametrize(
    "words",
    [
        ["uplink=qsgd", "downlink=stc", "rounds=3", "fraction=0.5"],
        pytest.param(["uplink=stc", "rounds=4"], marks=pytest.mark.slow),
    ],
)
def test_same_bytes_and_same_accuracy_as_inline(
    words: list[str], tmp_path: Path, mark: str
) -> None:
    config = load_config(None, ["task=digits", "clients=4", "seed=3", *words])

    def play(engine: str, workers: int) -> tuple[SimulationConfig, list[RoundRecord]]:
        seen: list[RoundRecord] = []
        changes = {"engine": engine, "workers": workers, "out": tmp_path / engine}
        changed = config.model_copy(update=changes)
        assert run(changed, seen.append) == tmp_path / engine
        return changed, seen

    _, inline = play("inline", 1)
    _, ray = play("ray", 2)
    assert len(inline) == config.rounds + 1
    assert inline[-1].bytes_up > 0
    assert timeless(ray) == timeless(inline)
    one, two = read_run(tmp_path / "inline"), read_run(tmp_path / "ray")
    assert timeless(list(two.records)) == timeless(list(one.records))
    assert two.summary is not None
    assert one.summary is not None
    assert two.summary.final == one.summary.final
    model = (tmp_path / "inline" / "model.safetensors").read_bytes()
    assert (tmp_path / "ray" / "model.safetensors").read_bytes() == model
    assert marked(mark) == []


@pytest.mark.slow
def test_a_failed_run_is_told_with_the_end_of_its_log(mark: str) -> None:
    with FlowerLink() as link:
        home = link.home
        with pytest.raises(EngineError, match=r"(?s)finished:failed.*the roof is on fire"):
            link.run(FAILING, clients=2, workers=1)
    assert not home.exists()
    assert marked(mark) == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_run_leaves_its_rounds_and_no_process(
    number: signal.Signals, tmp_path: Path, mark: str
) -> None:
    out = tmp_path / "run"
    words = ["engine=ray", "clients=3", "rounds=100000", "workers=2", f"out={out}"]
    script = f"""
from flowerpress.simulations.config import load_config
from flowerpress.simulations.engines import StoppedError, run
try:
    run(load_config(None, {words!r}))
except StoppedError as error:
    print(error)
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    rounds = out / "rounds.jsonl"
    while time.monotonic() < deadline:
        if rounds.exists() and rounds.read_text().count("\n") > 3:
            break
        time.sleep(0.1)
    process.send_signal(number)
    output, _ = process.communicate(timeout=30)
    while marked(mark) and time.monotonic() < deadline + 30:
        time.sleep(0.1)
    assert marked(mark) == []
    assert len(read_run(out).records) > 3
    if number == signal.SIGINT:
        assert f"stopped; the rounds until then are in {rounds}" in output


def test_the_leash_ends_what_has_left_its_session(mark: str) -> None:
    """A grandchild in a session of its own, whose parent is gone, goes too."""
    inner = "import subprocess; subprocess.Popen(['sleep', '600'], start_new_session=True)"
    command = [sys.executable, "-P", "-m", "flowerpress.simulations.engines.leash"]
    process = subprocess.Popen([*command, sys.executable, "-c", inner], stdin=subprocess.PIPE)
    assert process.wait(30) == 0
    assert marked(mark) == []
    process.communicate()
