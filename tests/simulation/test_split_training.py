"""Split training as a simulation: what it equals, what it counts, and that engines agree on it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from flowerpress.compression import ConfigError
from flowerpress.simulations.config import load_config
from flowerpress.simulations.engines import run
from flowerpress.simulations.record import RoundRecord, read_run

BASE = ("task=digits", "clients=3", "rounds=2", "seed=5", "partition=iid")
EXACT = ("uplink=none", "split.bottleneck=none", "split.gradients=none")
CODED = ("uplink=stc", "split.bottleneck=entropic(channels=6)", "split.beta=0.001")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def records(*words: str) -> Sequence[RoundRecord]:
    return read_run(run(load_config(None, [*BASE, *words]))).records


def losses(found: Sequence[RoundRecord]) -> list[float]:
    assert all(record.loss is not None for record in found)
    return [record.loss for record in found if record.loss is not None]


def told(found: Sequence[RoundRecord]) -> list[tuple[object, ...]]:
    """What must not depend on the engine."""
    return [
        (r.accuracy, r.loss, r.train_loss, r.bytes_up, r.bytes_down, r.up_by_tensor) for r in found
    ]


@pytest.fixture(scope="module")
def coded(tmp_path_factory: pytest.TempPathFactory) -> Sequence[RoundRecord]:
    out = tmp_path_factory.mktemp("coded") / "run"
    return read_run(run(load_config(None, [*BASE, *CODED, f"out={out}"]))).records


def test_copies_without_loss_are_federated_averaging() -> None:
    """SplitFed V1 with SGD and a network cut in two, against the whole one under FedAvg."""
    plain = "training.momentum=0"
    whole = records("uplink=none", plain, "out=whole")
    cut = records(*EXACT, plain, "out=cut")
    assert losses(cut) == pytest.approx(losses(whole), abs=1e-6)
    assert [record.accuracy for record in cut] == [record.accuracy for record in whole]
    halves = [load_file(f"cut/cut/{side}.safetensors") for side in ("device", "server")]
    found = [value for half in halves for value in half.values()]
    for value in load_file("whole/model.safetensors").values():
        same = [np.allclose(value, each, atol=1e-6) for each in found if each.shape == value.shape]
        assert any(same)


def test_bytes_are_told_by_what_they_are(coded: Sequence[RoundRecord]) -> None:
    first, second = coded[1:]
    for record in (first, second):
        assert sum(record.up_by_tensor.values()) == record.bytes_up
        assert sum(record.down_by_tensor.values()) == record.bytes_down
        assert {"(features)", "(labels)", "(headers)"} <= record.up_by_tensor.keys()
        assert {"(gradients)", "(headers)"} <= record.down_by_tensor.keys()
        assert record.bytes_up < record.raw_bytes_up
    # Tables come anew with each version of the prior, to each client.
    assert second.down_by_tensor["(tables)"] > 100
    assert losses(coded)[-1] < losses(coded)[0]


def test_labels_stay_where_the_last_layers_are() -> None:
    found = records(*CODED, "split.mode=u-shaped", "out=u")
    for record in found[1:]:
        assert "(labels)" not in record.up_by_tensor
        assert record.up_by_tensor["(tail gradients)"] > 0
        assert record.down_by_tensor["(tail inputs)"] > 0
    assert losses(found)[-1] < losses(found)[0]


def test_one_shared_tail_learns_from_all_clients_in_turns() -> None:
    shared = records(*EXACT, "split.sharing=v2", "out=v2")
    copies = records(*EXACT, "out=v1")
    # As many steps for each client, one after the other: the tail comes further.
    assert losses(shared)[-1] < losses(copies)[-1]
    assert shared[-1].bytes_up == copies[-1].bytes_up


def test_workers_give_the_same_bytes_and_losses(coded: Sequence[RoundRecord]) -> None:
    assert told(records(*CODED, "workers=2", "out=workers")) == told(coded)


@pytest.mark.slow
def test_ray_gives_the_same_bytes_and_losses(coded: Sequence[RoundRecord]) -> None:
    pytest.importorskip("ray")
    assert told(records(*CODED, "engine=ray", "out=ray")) == told(coded)


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (("split.at=nowhere",), "nowhere"),
        (("split.bottleneck=plain(bits=8)",), "split.start"),
        (("split.bottleneck=narrow",), "narrow"),
        (("split.gradients=topk(density=2)",), "density"),
    ],
)
def test_what_cannot_be_cut_is_said_before_anything_is_written(
    words: tuple[str, ...], match: str
) -> None:
    with pytest.raises(ConfigError, match=match):
        records(*words, "out=mine")
    assert not Path("mine").exists()
