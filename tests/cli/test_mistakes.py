"""What is said about what cannot be done: one message with the remedy, status 2, no traceback."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import SMALL, Said, stamps


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["round=3"], ["'round'", "did you mean 'rounds'?"]),
        (["training.learning_rate=1"], ["training.learning_rate", "training.lr"]),
        (["rounds=many"], ["rounds = 'many'", "a whole number, at least 1"]),
        (["--rounds", "0"], ["rounds = 0", "at least 1"]),
        (["--rounds", "x"], ["--rounds", "not a valid integer"]),
        (["--roundz", "3"], ["--roundz", "--rounds"]),
        (["--uplink", "stcc"], ["unknown codec 'stcc'", "did you mean 'stc'?"]),
        (["--downlink", "int88"], ["unknown codec 'int88'", "did you mean 'int8'?"]),
        (["--uplink", "stc(densty=0.1)"], ["densty", "did you mean 'density'?"]),
        (["--uplink", "stc(density=3)"], ["density is 3.0", "at most 1"]),
        (["--task", "digit"], ["unknown task 'digit'", "did you mean 'digits'?"]),
        (["--task", "./nope.py:Mine"], ["nope.py", "does not exist"]),
        (["--partition", "dirichle"], ["unknown partition", "did you mean 'dirichlet'?"]),
        (["--clients", "99999"], ["99999 clients", "1433"]),
        (["--engine", "rey"], ["unknown engine 'rey'", "did you mean 'ray'?"]),
        (["strategy=fedadm"], ["did you mean 'fedadam'?"]),
        (["strategy_options.etta=1"], ["etta"]),
        (["--task", "mnist"], ["no data folder", "train-images-idx3-ubyte.gz", "FLOWERPRESS_DATA"]),
        (["--task", "mnist", "--data", "nowhere"], ["nowhere does not exist", "mnist"]),
        (["--config", "nope.toml"], ["nope.toml", "No such file"]),
    ],
)
def test_a_mistake_is_explained_and_nothing_is_written(
    flowerpress: Callable[..., Said], words: list[str], parts: list[str]
) -> None:
    said = flowerpress("simulate", *words)
    assert said.code == 2
    assert said.out == ""
    for part in parts:
        assert part in said.err
    assert "Traceback" not in said.err
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--codecs", "none,stcc"], ["did you mean 'stc'?"]),
        (["--codecs", "none/stcc"], ["did you mean 'stc'?"]),
        (["--codecs", "none,int8,none"], ["'none' is given twice"]),
        (["--codecs", ","], ["no codec to compare", "none,stc"]),
        (["--clients", "99999"], ["99999 clients", "1433"]),
        (["--seeds", "0"], ["--seeds", "x>=1"]),
    ],
)
def test_a_comparison_that_cannot_work_does_not_start(
    flowerpress: Callable[..., Said], words: list[str], parts: list[str]
) -> None:
    said = flowerpress("compare", *words)
    assert said.code == 2
    assert said.err.count("flowerpress: ") <= 1
    for part in parts:
        assert part in said.err
    assert "Traceback" not in said.err
    assert list(Path.cwd().iterdir()) == []


def test_a_finished_run_is_overwritten_only_if_asked_and_possible(
    flowerpress: Callable[..., Said], simulated: tuple[Path, Said]
) -> None:
    folder, _ = simulated
    before = stamps(folder)
    said = flowerpress("simulate", *SMALL, "--out", folder)
    assert said.code == 2
    assert "finished run" in said.err
    assert "--overwrite" in said.err
    for mistake in (
        ["--uplink", "stcc"],
        ["--clients", "99999"],
        ["strategy_options.etta=1"],
        ["split.at=nowhere"],
    ):
        said = flowerpress("simulate", *mistake, "--out", folder, "--overwrite")
        assert said.code == 2
    assert stamps(folder) == before


def test_overwriting_replaces_the_run(flowerpress: Callable[..., Said]) -> None:
    out = ("--out", "here", "--rounds", "1", "--clients", "2")
    assert flowerpress("simulate", *out, "--uplink", "none").code == 0
    Path("here/notes.txt").write_text("mine")
    assert flowerpress("simulate", *out, "--uplink", "int8", "--overwrite").code == 0
    summary = json.loads(Path("here/summary.json").read_text())
    assert summary["config"]["uplink"] == "int8"
    assert Path("here/notes.txt").read_text() == "mine"
