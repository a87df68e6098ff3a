"""The state folders of a deployment: a write that fails, or is cut off, costs nothing."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from flowerpress.compression.errors import ConfigError
from flowerpress.simulations.config import SimulationConfig
from flowerpress.simulations.deploy.keys import Keys
from flowerpress.simulations.deploy.served import Served
from flowerpress.simulations.deploy.superlink import SuperLink


def full(*_: object) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def served(run: int) -> Served:
    return Served(config=SimulationConfig(clients=2), run_id=run, deadline=60.0)


def test_what_a_run_is_called_survives_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "served.json"
    served(11).write(path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(ConfigError, match="No space left on device"):
            served(12).write(path)
    assert Served.read(path).run_id == 11
    assert [each.name for each in tmp_path.iterdir()] == ["served.json"]


@pytest.mark.parametrize("torn", ["", '{"0123', "[]"])
def test_keys_are_registered_again_where_the_note_of_them_is_torn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, torn: str
) -> None:
    keys = Keys.create(tmp_path / "certs", ["localhost"], ["a", "b"], days=1)
    state = tmp_path / "state"
    state.mkdir()
    link = SuperLink(keys, state, "127.0.0.1", 1, {})
    registered: list[Any] = []
    monkeypatch.setattr(link.flower, "register", lambda key, name: registered.append(name))
    (state / "registered.json").write_text(torn)
    said: list[str] = []
    link.register(said.append)
    link.register(said.append)
    assert registered == ["a", "b"]
    assert len(said) == 2
