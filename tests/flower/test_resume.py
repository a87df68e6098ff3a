"""A strategy that goes on from its checkpoint does to the bit what it would have done."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import Mod
from flwr.serverapp.strategy import (
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedMedian,
    FedProx,
    FedTrimmedAvg,
    FedYogi,
    Krum,
    Result,
    Strategy,
)
from numpy.typing import NDArray

from flowerpress.client import press
from flowerpress.compression import ConfigError, StorageError
from flowerpress.compression.rates.policy import Policy
from flowerpress.protos.store import Snapshot
from flowerpress.protos.store.disk import write_file
from flowerpress.server import Checkpoint, Pressed
from flowerpress.simulations.engines.grid import server_identity
from flowerpress.simulations.engines.inline import InlineGrid

CLIENTS = 5
ROUNDS = 6
OPTIONS: dict[str, Any] = {"fraction_train": 0.6, "min_train_nodes": 2}

BUDGET = """
[budget]
target_bytes = 700
menu = "topk"
every = 2

[schedule]
accordion = true
"""

Third = Callable[[list[Mod]], ClientApp]


class Own(FedAvg):
    """Draws, and keeps what Pressed cannot know of; so it says it itself."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.pulls: list[float] = []

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        arrays, metrics = super().aggregate_train(server_round, replies)
        self.pulls.append(random.random() + float(np.random.rand()))
        if arrays is None:
            return None, metrics
        pulled = {k: Array(v.numpy() * np.float32(sum(self.pulls))) for k, v in arrays.items()}
        return ArrayRecord(pulled), metrics

    def state(self) -> Snapshot:
        return Snapshot({"pulls": self.pulls})

    def restore(self, snapshot: Snapshot) -> None:
        self.pulls = list(snapshot.facts["pulls"])


class Silent(FedAvg):
    """Keeps something and says nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.best = 0.0


class Renamed(FedAdam):
    """A subclass without attributes of its own."""


STRATEGIES: dict[str, Callable[[], Strategy]] = {
    "fedavg": lambda: FedAvg(**OPTIONS),
    "fedavgm": lambda: FedAvgM(server_momentum=0.9, server_learning_rate=0.5, **OPTIONS),
    "fedadam": lambda: FedAdam(eta=0.02, **OPTIONS),
    "fedyogi": lambda: FedYogi(eta=0.02, **OPTIONS),
    "fedadagrad": lambda: FedAdagrad(eta=0.02, **OPTIONS),
    "fedprox": lambda: FedProx(proximal_mu=0.1, **OPTIONS),
    "fedmedian": lambda: FedMedian(**OPTIONS),
    "fedtrimmedavg": lambda: FedTrimmedAvg(**OPTIONS),
    "krum": lambda: Krum(**OPTIONS),
    "own": lambda: Own(**OPTIONS),
    "renamed": lambda: Renamed(eta=0.02, **OPTIONS),
}
CODECS = ["stc", "none", "powersgd(rank=2)/int8", "qsgd/stc(density=0.05)", "rd", "budget"]


def judged(server_round: int, arrays: ArrayRecord) -> MetricRecord:
    total = float(sum(np.abs(a.numpy()).sum() for a in arrays.values()))
    return MetricRecord({"size": total, "odd": float("inf") if server_round == 2 else 0.0})


def made(inner: Strategy, codec: str, folder: Path | Checkpoint | None, **options: Any) -> Pressed:
    up, _, down = codec.partition("/")
    uplink = Policy.from_toml(BUDGET) if codec == "budget" else up
    options = {"seed": 5, "run_id": 7, "downlink": down or None, **options}
    if codec == "budget":
        options["downlink"] = "int8"
    return Pressed(inner, uplink=uplink, checkpoint=folder, **options)


def run(
    strategy: Pressed, grid: InlineGrid, model: dict[str, NDArray[np.float32]], rounds: int
) -> Result:
    with server_identity(grid.run.run_id):
        return strategy.start(
            grid,
            ArrayRecord({k: Array(v) for k, v in model.items()}),
            num_rounds=rounds,
            train_config=ConfigRecord({"lr": 0.5}),
            evaluate_fn=judged,
        )


def told(strategy: Pressed, result: Result) -> dict[str, Any]:
    return {
        "arrays": {k: (a.dtype, a.shape, a.data) for k, a in result.arrays.items()},
        "train": {n: dict(m) for n, m in result.train_metrics_clientapp.items()},
        "evaluate": {n: dict(m) for n, m in result.evaluate_metrics_clientapp.items()},
        "judged": {n: dict(m) for n, m in result.evaluate_metrics_serverapp.items()},
        "meter": strategy.meter.state().blobs,
        "left out": strategy.rejections,
        "plan": strategy.plan_in_force,
        "targets": strategy.targets,
        "draws": (random.random(), float(np.random.rand())),
    }


@pytest.mark.parametrize(
    ("name", "codec"),
    [*((name, "stc") for name in STRATEGIES), *(("fedadam", codec) for codec in CODECS)],
)
def test_a_run_in_two_parts_is_the_run_in_one(
    name: str,
    codec: str,
    third_party: Third,
    first_model: dict[str, NDArray[np.float32]],
    tmp_path: Path,
) -> None:
    def grid() -> InlineGrid:
        random.seed(3)
        np.random.seed(3)
        return InlineGrid(third_party([press()]), CLIENTS)

    whole = made(STRATEGIES[name](), codec, None)
    expected = told(whole, run(whole, grid(), first_model, ROUNDS))
    # All processes but the server go on; it is made anew after every other round.
    clients = grid()
    for rounds in range(0, ROUNDS + 1, 2):
        strategy = made(STRATEGIES[name](), codec, tmp_path / "kept")
        result = run(strategy, clients, first_model, rounds)
        random.seed(f"another process {rounds}")
        np.random.seed(rounds)
    # Once more with nothing left to do: what there is comes back.
    strategy = made(STRATEGIES[name](), codec, tmp_path / "kept")
    result = run(strategy, clients, first_model, ROUNDS)
    assert told(strategy, result) == expected
    assert expected["meter"]["rounds"]
    assert codec != "budget" or expected["plan"]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"inner": FedAvg()}, "class"),
        ({"inner": FedAdam(eta=0.3)}, "eta"),
        ({"codec": "int8"}, "uplink"),
        ({"codec": "stc/int8"}, "downlink"),
        ({"seed": 6}, "seed"),
        ({"run_id": 8}, "run_id"),
        ({"first": "none"}, "first"),
        ({"model": {"w": np.zeros((3, 4), np.float32)}}, "model"),
        ({"beside": {"more": Own()}}, "kept beside"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_and_kept(
    change: dict[str, Any],
    word: str,
    third_party: Third,
    first_model: dict[str, NDArray[np.float32]],
    tmp_path: Path,
) -> None:
    def go(rounds: int, **change: Any) -> Result:
        folder = Checkpoint(tmp_path / "kept", sync=False, beside=change.pop("beside", None))
        inner, codec = change.pop("inner", FedAdam()), change.pop("codec", "stc")
        model = change.pop("model", first_model)
        grid = InlineGrid(third_party([press()]), 2)
        return run(made(inner, codec, folder, **change), grid, model, rounds)

    go(1)
    before = {path.name: path.read_bytes() for path in (tmp_path / "kept").iterdir()}
    with pytest.raises(ConfigError, match=f"(?s)another .*{word}.*another folder"):
        go(2, **change)
    assert {path.name: path.read_bytes() for path in (tmp_path / "kept").iterdir()} == before
    go(2)


def test_run_id_and_seed_that_were_drawn_are_those_of_the_checkpoint(
    third_party: Third, first_model: dict[str, NDArray[np.float32]], tmp_path: Path
) -> None:
    grid = InlineGrid(third_party([press()]), 2)
    identities = []
    for rounds in (1, 2):
        strategy = made(FedAvg(), "qsgd", tmp_path / "kept", seed=None, run_id=None)
        run(strategy, grid, first_model, rounds)
        assert not strategy.rejections
        identities.append((strategy._broadcast.run, strategy._downlink.seed))
    assert identities[0] == identities[1]
    assert strategy._intake.watermarks == {2: 2, 3: 2}


def test_a_strategy_that_may_keep_something_unknown_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Silent has attributes of its own \(best\).*state\(\)"):
        Pressed(Silent(), checkpoint=tmp_path)
    Pressed(Silent())  # without a checkpoint there is nothing to know


def test_a_checkpoint_that_cannot_be_written_stops_the_run_and_the_one_before_is_gone_on_from(
    third_party: Third,
    first_model: dict[str, NDArray[np.float32]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def grid() -> InlineGrid:
        random.seed(3)
        return InlineGrid(third_party([press()]), 3)

    whole = made(FedAdam(), "none", None)
    expected = told(whole, run(whole, grid(), first_model, 3))["arrays"]
    writes = {"left": -1}

    def failing(*args: Any, **options: Any) -> None:
        writes["left"] -= 1
        if writes["left"] == 0:
            raise OSError(28, "No space left on device")
        write_file(*args, **options)

    monkeypatch.setattr("flowerpress.protos.store.generations.write_file", failing)
    for nth in range(1, 5):
        folder = tmp_path / str(nth)
        # Lossless both ways: what clients hold of a round that is repeated makes no difference.
        clients, writes["left"] = grid(), nth
        with pytest.raises(
            StorageError, match=rf"round {nth - 1} is over and cannot be kept.*No s"
        ):
            run(made(FedAdam(), "none", folder), clients, first_model, 3)
        writes["left"] = -1
        again = clients if nth > 1 else grid()
        strategy = made(FedAdam(), "none", folder)
        assert told(strategy, run(strategy, again, first_model, 3))["arrays"] == expected


def test_where_the_newest_state_is_damaged_the_one_before_is_gone_on_from(
    third_party: Third, first_model: dict[str, NDArray[np.float32]], tmp_path: Path
) -> None:
    random.seed(3)
    clients = InlineGrid(third_party([press()]), 3)
    strategy = made(FedAdam(), "none", tmp_path / "kept")
    expected = told(strategy, run(strategy, clients, first_model, 3))["arrays"]
    newest = max((tmp_path / "kept").glob("*.safetensors"))
    body = bytearray(newest.read_bytes())
    body[len(body) // 2] ^= 1
    newest.write_bytes(body)
    rounds: list[int] = []

    def noting(server_round: int, arrays: ArrayRecord) -> None:
        rounds.append(server_round)

    strategy = made(FedAdam(), "none", tmp_path / "kept")
    with server_identity(clients.run.run_id):
        result = strategy.start(
            clients,
            ArrayRecord({k: Array(v) for k, v in first_model.items()}),
            num_rounds=3,
            train_config=ConfigRecord({"lr": 0.5}),
            evaluate_fn=noting,
        )
    assert rounds == [3]
    assert {k: (a.dtype, a.shape, a.data) for k, a in result.arrays.items()} == expected
    # With all of them damaged it says so, and begins nothing.
    for path in (tmp_path / "kept").glob("*.safetensors"):
        path.write_bytes(b"?")
    with pytest.raises(StorageError, match="no generation in it is what was written"):
        run(made(FedAdam(), "none", tmp_path / "kept"), clients, first_model, 3)
