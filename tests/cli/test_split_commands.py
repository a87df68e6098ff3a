"""A device asks a server for predictions: two commands, two processes."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowerpress.simulations.config import SimulationConfig
from flowerpress.simulations.split.distill_settings import DistillSettings
from flowerpress.simulations.split.distilling import Distillation, distil
from tests.cli.conftest import command
from tests.wire.splitting import certificate

SCRIPT = "from flowerpress.simulations.cli import main; main()"


def cut_in(folder: Path, mode: str, bottleneck: str) -> float:
    """Distill a small network into ``folder``; return its accuracy in one process."""
    config = SimulationConfig(task="digits", clients=2, partition="iid")
    how = DistillSettings(epochs_stage1=1, epochs_stage2=0, lr=5e-3)
    wanted = Distillation(config, None, bottleneck, mode, how, None, 1, False)
    return distil(wanted, folder).student.accuracy


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    folder = tmp_path_factory.mktemp("cut")
    return folder, cut_in(folder, "vanilla", "entropic(channels=4,width=8)")


@contextlib.contextmanager
def served(*words: str | Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run ``split serve`` in a process of its own; yield the address it tells."""
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, "split", "serve", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        assert process.stdout is not None
        found = re.match(r"Listening on (\S+)", process.stdout.readline())
        assert found is not None, process.communicate()
        yield found[1], process
    finally:
        process.kill()
        process.communicate()


def test_a_device_gets_the_predictions_of_the_whole_network(cut: tuple[Path, float]) -> None:
    folder, accuracy = cut
    with served(folder, "--address", "127.0.0.1:0") as (address, process):
        for batch in (1, 64):
            said = command("split", "infer", folder, address, "--batch", batch, columns=200)
            assert (said.code, said.err) == (0, "")
            assert f"364 examples, {100 * accuracy:.2f}% right" in said.out
            assert "estimated" in said.out
        found = re.search(r"example: ([\d.]+) up \(([\d.]+) of them features", said.out)
        assert found is not None
        # 64 examples share an envelope.
        assert float(found[2]) < float(found[1]) < float(found[2]) + 3
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=20)
        assert (process.returncode, err) == (0, "")
        assert out.endswith("Stopped.\n")
    gone = command("split", "infer", folder, address, "--deadline", 0.5)
    assert gone.code == 2
    assert "is the service running there" in gone.err


def test_a_device_without_the_servers_weights_and_labels_that_stay(tmp_path: Path) -> None:
    accuracy = cut_in(tmp_path / "cut", "u-shaped", "reduction(channels=2,bits=8,width=8)")
    device = tmp_path / "device"
    device.mkdir()
    for name in ("cut.json", "device.safetensors"):
        shutil.copy(tmp_path / "cut" / name, device)
    with served(tmp_path / "cut", "--address", "127.0.0.1:0") as (address, _):
        said = command("split", "infer", device, address, "--batch", 91, columns=200)
        assert f"{100 * accuracy:.2f}% right" in said.out, said.err


def test_a_secret_and_tls(cut: tuple[Path, float], tmp_path: Path) -> None:
    folder, _ = cut
    key, chain = certificate()
    token, key_file, chain_file = (tmp_path / name for name in ("token", "key", "chain"))
    token.write_text("open sesame\n")
    key_file.write_bytes(key)
    chain_file.write_bytes(chain)
    secured = ("--certificate", chain_file, "--key", key_file, "--token-file", token)
    asking = ("--samples", 4, "--deadline", 30)
    with served(folder, "--address", "127.0.0.1:0", *secured) as (address, _):
        ask = ("split", "infer", folder, address, *asking, "--root-certificate", chain_file)
        assert command(*ask, "--token-file", token).code == 0
        refused = command(*ask)
        assert refused.code == 2
        assert "token" in refused.err
        bare = command("split", "infer", folder, address, "--samples", 4, "--deadline", 0.5)
        assert bare.code == 2
        assert "TLS" in bare.err
    alone = command("split", "serve", folder, "--key", key_file)
    assert alone.code == 2
    assert "come together" in alone.err


def test_another_network_is_refused(cut: tuple[Path, float], tmp_path: Path) -> None:
    folder, _ = cut
    cut_in(tmp_path / "other", "vanilla", "entropic(channels=5,width=8)")
    with served(folder, "--address", "127.0.0.1:0") as (address, _):
        said = command("split", "infer", tmp_path / "other", address, "--deadline", 3)
        assert said.code == 2
        assert "cut" in said.err


def test_folders_that_hold_no_cut_network(tmp_path: Path, cut: tuple[Path, float]) -> None:
    said = command("split", "serve", tmp_path)
    assert said.code == 2
    assert "split train" in said.err
    broken = tmp_path / "broken"
    shutil.copytree(cut[0], broken)
    (broken / "server.safetensors").write_bytes(b"nothing")
    said = command("split", "serve", broken)
    assert said.code == 2
    assert "server.safetensors" in said.err
