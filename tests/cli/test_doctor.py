"""``flowerpress doctor``: what it looks at, and that nothing broken keeps it from telling."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from flowerpress.simulations.health import Check, machine
from tests.cli.conftest import Said


def test_a_machine_in_order(flowerpress: Callable[..., Said]) -> None:
    said = flowerpress("doctor")
    assert said.code == 0, said.out
    words = {line.split()[1]: line.split() for line in said.out.splitlines() if line[0] != " "}
    assert words["torch"][2] == version("torch")
    assert words["flwr"][0] == "ok"
    assert words["codecs"][0] == "ok"
    assert max(map(len, said.out.splitlines())) <= 80


def test_data_folders(flowerpress: Callable[..., Said], tmp_path: Path) -> None:
    (tmp_path / "mnist").mkdir()
    said = flowerpress("doctor", "--quick", FLOWERPRESS_DATA=str(tmp_path))
    assert said.code == 0
    assert "(mnist)" in "".join(said.out.split())
    said = flowerpress("doctor", "--quick", FLOWERPRESS_DATA="/does/not/exist")
    assert said.code == 1
    assert "FAILED  data folder" in said.out
    assert "/does/not/exist" in said.out
    said = flowerpress("doctor", "--quick")
    assert said.code == 0
    assert "note" in said.out
    assert "--data FOLDER" in " ".join(said.out.split())


def test_advice_comes_out_whole(
    flowerpress: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> str:
        if name == "zstandard":
            raise PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(machine, "version", absent)
    said = flowerpress("doctor", "--quick", columns=120)
    assert said.code == 1
    assert "missing; pip install 'flowerpress[simulation]' -c constraints.txt" in said.out


def test_a_check_that_breaks_is_a_finding(
    flowerpress: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> Check:
        raise OSError("libllvm.so: cannot open")

    monkeypatch.setattr(machine, "_kernels", broken)
    said = flowerpress("doctor")
    assert said.code == 1
    assert "FAILED  codecs" in said.out
    assert "libllvm.so" in said.out
    assert "cores" in said.out
