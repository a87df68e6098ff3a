"""A simulation that is killed and goes on ends as one that never was killed."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flowerpress.protos.store import Store
from flowerpress.server.snapshots import part
from flowerpress.simulations.config import SimulationConfig
from flowerpress.simulations.resuming import can_go_on, server_folder
from tests.simulation.killing import POINTS

ROUNDS = 4

BUDGET = """\
[budget]
target_bytes = 600
menu = "topk"
every = 2
"""

# What a run may keep between rounds, spread over few runs.
VARIANTS: dict[str, dict[str, Any]] = {
    "adam": {"strategy": "fedadam", "strategy_options": {"eta": 0.01}, "uplink": "stc"},
    "momentum": {
        "strategy": "fedavgm",
        "strategy_options": {"server_momentum": 0.5},
        "uplink": "none",
        "fraction": 0.67,
    },
    "late": {
        "uplink": "qsgd",
        "downlink": "stc(density=0.05)",
        "links": "loguniform(low=64k,high=20M)",
        "deadline": 0.5,
        "evaluate_every": 2,
    },
    "budget": {"uplink": "budget.toml", "downlink": "powersgd(rank=2)", "strategy": "fedmedian"},
}

# A network in two parts, and whose copies of the server's part are trained.
CUT: dict[str, dict[str, Any]] = {
    "copies": {"split": {"bottleneck": "entropic(channels=4)"}},
    "shared": {
        "split": {"sharing": "v2", "mode": "u-shaped", "bottleneck": "entropic(channels=4)"},
        "fraction": 0.67,
    },
}


class Killing:
    """The process in ``killing.py``, and what came of the runs that it made."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / "budget.toml").write_text(BUDGET)
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__).with_name("killing.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=folder,
        )
        self._whole: dict[str, dict[str, Any]] = {}

    def close(self) -> None:
        self._process.communicate(timeout=60)

    def config(self, variant: str, name: str, **more: Any) -> SimulationConfig:
        settings = dict((VARIANTS | CUT)[variant])
        if settings.get("uplink", "").endswith(".toml"):
            settings["uplink"] = str(self._folder / settings["uplink"])
        training = {"epochs": 1, "max_samples": 32}
        out = str(self._folder / f"{variant}-{name}")
        return SimulationConfig.model_validate(
            {"clients": 3, "rounds": ROUNDS, "training": training, "out": out, **settings, **more}
        )

    def go(self, config: SimulationConfig, kill: tuple[str, int] | None = None) -> dict[str, Any]:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps({"config": config.to_json(), "kill": kill}) + "\n")
        stdin.flush()
        answer: dict[str, Any] = json.loads(stdout.readline())
        return answer

    def whole(self, variant: str) -> dict[str, Any]:
        """What a run that is left alone comes to, and how often it passes each point."""
        if variant not in self._whole:
            config = self.config(variant, "whole")
            answer = self.go(config)
            assert answer["status"] == 0
            self._whole[variant] = {"passed": answer["passed"], **result(config)}
        return self._whole[variant]


def result(config: SimulationConfig) -> dict[str, Any]:
    """What must be the same: all but wall-clock times and the folder."""
    folder = config.out
    assert folder is not None
    lines = [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]
    summary = json.loads((folder / "summary.json").read_text())
    for timed in (*lines, summary):
        del timed["seconds"]
    del summary["config"]["out"]
    models = [folder / "model.safetensors", *sorted(folder.glob("cut/*.safetensors"))]
    model = [path.read_bytes() for path in models if path.exists()]
    assert model
    return {"model": model, "lines": lines, "summary": summary}


@pytest.fixture(scope="module")
def killing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Killing]:
    process = Killing(tmp_path_factory.mktemp("killed"))
    yield process
    process.close()


def check(killing: Killing, variant: str, point: str, nth: int, seed: int) -> None:
    whole = killing.whole(variant)
    config = killing.config(variant, f"{point.replace(' ', '-')}-{nth}-{seed}")
    assert killing.go(config, (point, nth))["status"] == -signal.SIGKILL
    last = kept_round(config)
    again = killing.go(config)
    assert again["status"] == 0
    if last is not None:  # rounds that are in the state are not trained again
        assert again["passed"].get("round: after the aggregate", 0) == ROUNDS - max(last, 0)
    found = result(config)
    assert found["lines"] == whole["lines"]
    assert found["model"] == whole["model"]
    assert found["summary"] == whole["summary"]


def kept_round(config: SimulationConfig) -> int | None:
    """Return the last round that is in the server's state; None where the run is over."""
    assert config.out is not None
    if not can_go_on(config.out):
        return None
    with Store(server_folder(config.out), sync=False) as store:
        found = store.load()
    return -1 if found is None else int(part(part(found, "run"), "own").facts["round"])


def drawn(killing: Killing, variant: str, point: str, draw: random.Random) -> int:
    """Return which of the times that a run passes a point is its last."""
    return draw.randint(1, killing.whole(variant)["passed"][point])


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_any_point_a_run_goes_on_to_the_same_end(killing: Killing, point: str) -> None:
    draw = random.Random(point)
    variant = draw.choice(list(VARIANTS))
    check(killing, variant, point, drawn(killing, variant, point, draw), 0)


@pytest.mark.parametrize("variant", CUT)
def test_killed_in_split_training_a_run_goes_on_to_the_same_end(
    killing: Killing, variant: str
) -> None:
    # Of the last round before: the optimizers of the server's part, the tables, the turns.
    check(killing, variant, "round: after the aggregate", 3, 0)


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS)
def test_killed_at_every_point_twenty_times(killing: Killing, point: str) -> None:
    for seed in range(1, 21):
        draw = random.Random(f"{point}/{seed}")
        variant = draw.choice(list(VARIANTS))
        check(killing, variant, point, drawn(killing, variant, point, draw), seed)
