"""A deployment's run whose machine loses power: what waited for the disk is enough to go on."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from flowerpress.simulations.app import Surroundings, make_client_app, serve
from flowerpress.simulations.config import SimulationConfig
from flowerpress.simulations.engines.grid import server_identity
from flowerpress.simulations.engines.inline import InlineGrid
from flowerpress.simulations.record import RoundRecord
from flowerpress.simulations.resuming import begin, go_on

LAST = 2


class Disk:
    """Knows how much of each file was synced, and forgets the rest."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._synced: dict[int, int] = {}
        fsync = os.fsync

        def noted(descriptor: int) -> None:
            fsync(descriptor)
            found = os.fstat(descriptor)
            if stat.S_ISREG(found.st_mode):
                self._synced[found.st_ino] = found.st_size

        patch.setattr(os, "fsync", noted)

    def lose_power(self, folder: Path) -> None:
        for path in [each for each in folder.rglob("*") if each.is_file()]:
            # SQLite syncs for itself, out of Python's sight.
            if path.name.startswith("index.sqlite"):
                continue
            size = self._synced.get(path.stat().st_ino)
            if size is None:
                path.unlink()
            else:
                os.truncate(path, size)


def test_every_round_in_the_state_is_recorded_after_a_loss_of_power(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    config = SimulationConfig(clients=2, rounds=4, uplink="int8", out=out)
    disk = Disk(monkeypatch)

    def stop(record: RoundRecord) -> None:
        if record.round > LAST:
            raise InterruptedError

    begin(config)
    grid: Any = InlineGrid(make_client_app(config), 2)
    with server_identity(1), pytest.raises(InterruptedError):
        serve(config, grid, stop, Surroundings(run_id=7, sync=True))
    disk.lose_power(out)
    assert [record.round for record in go_on(config)] == list(range(LAST + 1))
