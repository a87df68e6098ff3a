"""``flowerpress split distill``, from the words to the folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowerpress.compression import ConfigError
from flowerpress.simulations.config import SimulationConfig
from flowerpress.simulations.split.distill_settings import DistillSettings
from flowerpress.simulations.split.distilling import Distillation, distil
from flowerpress.simulations.split.lesson import judge_cut
from flowerpress.simulations.split.networks import cut_task
from flowerpress.simulations.split.stored import load_cut, load_recipe, load_tables
from flowerpress.simulations.tasks.digits import Digits

SHORT = DistillSettings(epochs_stage1=2, epochs_stage2=1, lr=5e-3)


def wanted(**changes: object) -> Distillation:
    own = {"config": SimulationConfig(task="digits", clients=2, partition="iid", uplink="int8")}
    given = {**own, "teacher_epochs": 3, "settings": SHORT, **changes}
    return Distillation(at=None, bottleneck="entropic(channels=4,width=8)", **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("federated", [False, True])
def test_what_is_written_is_what_was_judged(tmp_path: Path, federated: bool) -> None:
    told: list[str] = []
    done = distil(wanted(federated=federated), tmp_path / "cut", lambda name, *_: told.append(name))
    assert told == ["teacher"] * 3 + ["features"] * 2 + ["tail"]
    assert done.teacher > 0.5
    assert (done.traffic is not None) == federated
    recipe = load_recipe(tmp_path / "cut")
    task = Digits()
    where = {"at": recipe.at, "bottleneck": recipe.bottleneck, "mode": recipe.mode}
    cut = cut_task(task, task.load(), **where)
    load_cut(cut, tmp_path / "cut")
    assert judge_cut(cut, task, task.load().test) == done.student
    ours, theirs = load_tables(tmp_path / "cut"), cut.bottleneck.tables(1)
    assert ours is not None
    assert theirs is not None
    assert ours.to_bytes() == theirs.to_bytes()
    # The same words again: nothing is left to do.
    told.clear()
    again = distil(
        wanted(federated=federated), tmp_path / "cut", lambda name, *_: told.append(name)
    )
    assert not told
    assert again.student == done.student


def test_a_teacher_from_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the teacher"):
        distil(wanted(teacher=tmp_path / "none.safetensors"), tmp_path)
    distil(wanted(settings=DistillSettings(epochs_stage1=0, epochs_stage2=0)), tmp_path / "one")
    with pytest.raises(ConfigError, match="is no network of task digits"):
        distil(wanted(teacher=tmp_path / "one" / "server.safetensors"), tmp_path)


def test_a_place_that_is_none(tmp_path: Path) -> None:
    config = SimulationConfig(task="digits")
    with pytest.raises(ConfigError, match="unknown part of the network"):
        distil(Distillation(config, "pol", "plain", teacher_epochs=1), tmp_path)


def test_another_engine_is_refused(tmp_path: Path) -> None:
    config = SimulationConfig(task="digits", engine="ray")
    with pytest.raises(ConfigError, match="--workers"):
        distil(wanted(config=config, federated=True), tmp_path)
    assert not list(tmp_path.iterdir())
