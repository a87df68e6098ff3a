"""``flowerpress inspect``: tensors, updates, and files that are neither."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.cli.conftest import Said

Arrays = dict[str, np.ndarray]


@pytest.fixture
def arrays() -> Arrays:
    rng = np.random.default_rng(3)
    return {
        "conv.weight": rng.standard_normal((16, 3, 3, 3)).astype(np.float32),
        "conv.bias": rng.standard_normal(16).astype(np.float32),
        "[bold]fc\x1b[31m": rng.standard_normal((40, 50)).astype(np.float32),
        "steps": np.array(7, np.int64),
    }


@pytest.mark.parametrize("kind", ["npz", "safetensors"])
def test_tensors_are_coded_and_shown(
    flowerpress: Callable[..., Said], arrays: Arrays, kind: str
) -> None:
    file = Path(f"update.{kind}")
    if kind == "npz":
        np.savez(file, **arrays)  # type: ignore[arg-type]
    else:
        save_file(arrays, file)
    said = flowerpress("inspect", file, "--codec", "int8", "--save", "coded.fpu")
    assert said.code == 0, said.err
    lines = said.out.splitlines()
    rows = {line.split()[0]: line.split() for line in lines}
    assert rows["tensor"][:4] == ["tensor", "shape", "bytes", "bits"]
    assert rows["conv.weight"][1] == "16x3x3x3"
    assert rows["conv.weight"][4] == "432"
    assert rows["steps"][1] == "scalar"
    # A name is shown as it is: neither as markup, nor as orders to the terminal.
    assert r"[bold]fc\x1b[31m" in rows
    assert "\x1b" not in said.out
    assert max(len(line.rstrip()) for line in lines) <= 80
    size = Path("coded.fpu").stat().st_size
    assert rows["all,"][3] == f"{size:,}"
    assert f"{size:,} bytes written to coded.fpu" in said.out

    again = flowerpress("inspect", "coded.fpu", columns=120)
    assert again.code == 0, again.err
    shown = {line.split()[0]: line.split() for line in again.out.splitlines()}
    for name in ("conv.weight", "conv.bias", "steps"):
        assert shown[name][:5] == rows[name][:5]
    assert shown["all,"][3] == rows["all,"][3]
    assert "model" in again.out.splitlines()[0]
    assert "round 0" in again.out.splitlines()[0]


def test_one_codec_is_named_once(flowerpress: Callable[..., Said], arrays: Arrays) -> None:
    floats = {name: arrays[name] for name in ("conv.weight", "conv.bias")}
    np.savez("update.npz", **floats)  # type: ignore[arg-type]
    said = flowerpress("inspect", "update.npz", "--codec", "topk(density=0.1)")
    assert said.out.count("top-k 10%") == 1
    assert "Codec: top-k 10%" in said.out
    assert "codec" not in said.out.splitlines()[0]


def test_a_damaged_update_is_refused(flowerpress: Callable[..., Said], arrays: Arrays) -> None:
    np.savez("update.npz", **arrays)  # type: ignore[arg-type]
    assert flowerpress("inspect", "update.npz", "--save", "coded.fpu").code == 0
    blob = Path("coded.fpu").read_bytes()
    damaged = [blob[:length] for length in (4, 5, 20, 100, len(blob) - 1)]
    damaged += [blob + b"x", blob[:50] + bytes([blob[50] ^ 1]) + blob[51:]]
    for bad in damaged:
        Path("bad.fpu").write_bytes(bad)
        said = flowerpress("inspect", "bad.fpu")
        assert said.code == 2
        assert said.err.startswith("flowerpress: ")
        assert "Traceback" not in said.err


def test_files_that_are_no_updates(flowerpress: Callable[..., Said], tmp_path: Path) -> None:
    Path("notes.txt").write_text("hello")
    Path("empty").write_bytes(b"")
    Path("text.safetensors").write_text("hello, this is no header")
    np.save("one.npy", np.ones(3, np.float32))
    np.savez("objects.npz", x=np.array([{}], dtype=object))
    np.savez("words.npz", x=np.array(["a"]))
    np.savez_compressed("torn.npz", x=np.random.default_rng(0).standard_normal(1000))
    torn = bytearray(Path("torn.npz").read_bytes())
    torn[300:600] = bytes(300)
    Path("torn.npz").write_bytes(torn)
    np.savez("nan.npz", x=np.array([1, np.nan], np.float32))
    expected = {
        "notes.txt": "neither an update nor tensors",
        "empty": "neither an update nor tensors",
        "text.safetensors": "cannot be read",
        "one.npy": "neither an update nor tensors",
        "objects.npz": "objects.npz",
        "words.npz": "dtype",
        "torn.npz": "torn.npz",
        "nan.npz": "NaN",
        "missing.npz": "No such file",
        str(tmp_path): "directory",
    }
    for name, part in expected.items():
        said = flowerpress("inspect", name)
        assert said.code == 2, name
        assert part in said.err
        assert "Traceback" not in said.err
        assert "pickle" not in said.err  # no advice to load it unsafely


def test_a_place_that_cannot_be_written(flowerpress: Callable[..., Said], arrays: Arrays) -> None:
    np.savez("update.npz", **arrays)  # type: ignore[arg-type]
    said = flowerpress("inspect", "update.npz", "--save", "nowhere/coded.fpu")
    assert said.code == 2
    assert "cannot write nowhere/coded.fpu" in said.err
