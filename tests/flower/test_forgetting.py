"""A run that forgets what was written down ends as one that remembers all of it."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable, Mod
from flwr.serverapp.strategy import FedAvg
from numpy.typing import NDArray

from flowerpress.client import press
from flowerpress.protos.store import Store
from flowerpress.server import Pressed
from flowerpress.server.exchange import ExchangeService
from flowerpress.server.snapshots import from_blob, part
from flowerpress.simulations.engines.grid import server_identity
from flowerpress.simulations.engines.inline import InlineGrid

CLIENTS, ROUNDS = 3, 4


def failing(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Fail on client 1, in every round."""
    if context.node_config["partition-id"] == 1:
        raise RuntimeError("out of order")
    return call_next(message, context)


def run(
    third_party: Callable[[list[Mod]], ClientApp],
    first_model: dict[str, NDArray[np.float32]],
    folder: Path,
    *,
    forgets: bool,
) -> dict[str, Any]:
    """Return what is left of a run."""
    random.seed(3)  # Flower samples clients with the global generator, and sums in that order
    grid = InlineGrid(third_party([failing, press()]), CLIENTS)
    with ExchangeService() as service, server_identity(grid.run.run_id):
        strategy = Pressed(
            FedAvg(),
            seed=5,
            run_id=9,
            defence="clip",
            carrier=service,
            checkpoint=folder,
        )
        seen: dict[int, int] = {}

        def record(server_round: int, arrays: ArrayRecord) -> None:
            del arrays
            seen[server_round] = strategy.meter.of(server_round).uplink.total
            if forgets:
                strategy.forget(server_round)

        arrays = ArrayRecord({name: Array(value) for name, value in first_model.items()})
        result = strategy.start(grid, arrays, num_rounds=ROUNDS, evaluate_fn=record)
        traffic = [number for number in range(1, ROUNDS + 1) if strategy.traffic(number)]
    with Store(folder, sync=False) as store:
        kept = store.load()
    assert kept is not None
    return {
        "model": {name: array.data for name, array in result.arrays.items()},
        "seen": seen,
        "accounts": strategy.verdicts.facts(),
        "meter": sorted(number for number in strategy.meter.rounds if number),
        "kept": sorted(
            number for number, *_ in from_blob(part(kept, "meter").blobs["rounds"]) if number
        ),
        "rejections": [each.round for each in strategy.rejections],
        "treatments": sorted({each.round for each in strategy.treatments}),
        "traffic": traffic,
    }


def test_what_was_written_down_can_be_forgotten(
    third_party: Callable[[list[Mod]], ClientApp],
    first_model: dict[str, NDArray[np.float32]],
    tmp_path: Path,
) -> None:
    whole = run(third_party, first_model, tmp_path / "whole", forgets=False)
    short = run(third_party, first_model, tmp_path / "short", forgets=True)
    for name in ("model", "seen", "accounts"):
        assert short.pop(name) == whole.pop(name)
    every = list(range(1, ROUNDS + 1))
    assert set(whole.pop("rejections")) == set(every)
    assert list(whole.values()) == [every] * len(whole)
    assert set(short.pop("rejections")) == {ROUNDS}
    assert list(short.values()) == [[ROUNDS]] * len(short)
