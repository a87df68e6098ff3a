"""Rounds for TensorBoard, read back by TensorBoard, beside those of ``rounds.jsonl``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from unittest import mock

import pytest

from flowerpress.simulations.record import read_run
from tests.cli.conftest import Said

WORDS = ("--rounds", "2", "--clients", "2", "links=3g", "training.max_samples=20")


def read(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return (step, value) by tag."""
    pytest.importorskip("tensorboard", reason="the extra 'tracking' is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {
        tag: [(one.step, one.value) for one in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def check(events: Path, folder: Path) -> None:
    """The events say what the records say."""
    records = read_run(folder).records
    found = read(events)
    assert len(records) == 3
    for tag, values in {
        "accuracy/all": [record.accuracy for record in records],
        "accuracy/worst client": [r.worst_client.accuracy for r in records if r.worst_client],
        "loss/test": [record.loss for record in records],
        "bytes/up": [record.bytes_up for record in records],
        "bytes/down": [record.bytes_down for record in records],
        "seconds/simulated": [record.simulated_seconds for record in records],
    }.items():
        assert [step for step, _ in found[tag]] == [record.round for record in records], tag
        assert [value for _, value in found[tag]] == pytest.approx(values), tag
    assert found["bytes/up"][-1][1] > 0 < found["seconds/simulated"][-1][1]
    sent = [total >> 10 for total in accumulate(record.bytes_total for record in records)]
    assert [step for step, _ in found["accuracy by KiB sent"]] == sent


def test_a_run(flowerpress: Callable[..., Said]) -> None:
    pytest.importorskip("tensorboard", reason="the extra 'tracking' is not installed")
    said = flowerpress(
        "simulate", *WORDS, "--uplink", "int8", "--out", "run", "--tensorboard", "events"
    )
    assert said.code == 0, said.err
    check(Path("events"), Path("run"))


def test_a_comparison_and_what_it_kept(flowerpress: Callable[..., Said]) -> None:
    pytest.importorskip("tensorboard", reason="the extra 'tracking' is not installed")
    words = ("compare", "--codecs", "int8", "--seeds", "1", *WORDS, "--out", "all")
    for events in ("while it goes on", "kept"):
        said = flowerpress(*words, "--tensorboard", events)
        assert said.code == 0, said.err
        check(Path(events, "int8", "seed-0"), Path("all", "int8", "seed-0"))


def test_without_tensorboard_it_says_what_to_install(flowerpress: Callable[..., Said]) -> None:
    with mock.patch.dict(sys.modules, {"torch.utils.tensorboard": None}):
        said = flowerpress("simulate", *WORDS, "--out", "run", "--tensorboard", "events")
    assert said.code == 2
    assert "pip install 'flowerpress[tracking]'" in said.err
    assert not Path("run").exists()


def test_a_folder_that_cannot_be(flowerpress: Callable[..., Said]) -> None:
    pytest.importorskip("tensorboard", reason="the extra 'tracking' is not installed")
    Path("events").write_text("")
    said = flowerpress("simulate", *WORDS, "--tensorboard", "events")
    assert said.code == 2
    assert "events: cannot be written" in said.err
