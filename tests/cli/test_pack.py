"""``flowerpress pack`` and ``unpack``: model files there and back, and what must not happen."""

from __future__ import annotations

import json
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file as save_numpy
from safetensors.torch import load_file, save_file

from flowerpress.compression import PRESETS, Manifest, encode_frames, preset
from flowerpress.protos import Kind, Update, pack
from flowerpress.simulations.checkpoints.packing import pack_tensors
from flowerpress.simulations.checkpoints.stored import opened
from tests.cli.conftest import Said

Run = Callable[..., Said]
METADATA = {"format": "pt"}


def model() -> dict[str, torch.Tensor]:
    noise = torch.Generator().manual_seed(2)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=noise)

    return {
        "embed.weight": normal(200, 16).bfloat16(),
        "layers.0.weight": 0.02 * normal(64, 48),
        "layers.0.norm": (1 + 0.1 * normal(64)).half(),
        "layers.1.weight": 0.02 * normal(64, 48),
        "double": normal(3, 5).double(),
        "scale": torch.tensor(0.5),
        "empty": torch.zeros(0, 4),
        "steps": torch.tensor([3, -(1 << 40)]),
        "mask": torch.tensor([True, False, True]),
        "bytes": torch.arange(7, dtype=torch.uint8),
    }


@pytest.fixture
def run(flowerpress: Run) -> Run:
    save_file(model(), "model.safetensors", metadata=METADATA)
    return flowerpress


def refused(said: Said, *words: str) -> None:
    assert said.code == 2
    assert said.err.startswith("flowerpress: ")
    assert "Traceback" not in said.err
    for word in words:
        assert word in said.err


def rows(said: Said) -> dict[str, list[str]]:
    return {line.split()[0]: line.split() for line in said.out.splitlines()}


def test_lossless_gives_the_file_back(run: Run) -> None:
    assert run("pack", "model.safetensors", "--codec", "lossless").code == 0
    said = run("unpack", "model.fpress", "-o", "back.safetensors")
    assert said.code == 0, said.err
    assert "10 tensors" in said.out
    assert Path("back.safetensors").read_bytes() == Path("model.safetensors").read_bytes()
    assert Path("model.fpress").stat().st_size < Path("model.safetensors").stat().st_size


@pytest.mark.parametrize(("codec", "most"), [("int8", 2e-4), ("fp16", 1e-6)])
def test_what_is_lost_is_what_the_table_says(run: Run, codec: str, most: float) -> None:
    said = run("pack", "model.safetensors", "--codec", codec, "-o", "small.fpress", columns=120)
    assert said.code == 0, said.err
    assert run("unpack", "small.fpress").code == 0
    shown = rows(said)
    error = energy = 0.0
    before, after = model(), load_file("small.safetensors")
    assert after.keys() == before.keys()
    for name, tensor in before.items():
        assert after[name].dtype == tensor.dtype
        assert after[name].shape == tensor.shape
        if not tensor.is_floating_point():
            assert torch.equal(after[name], tensor)
            continue
        lost = float(((after[name].double() - tensor.double()) ** 2).sum())
        power = float((tensor.double() ** 2).sum())
        error, energy = error + lost, energy + power
        at = shown["tensor"].index("NMSE")
        assert float(shown[name][at]) == pytest.approx(lost / power if power else 0, rel=0.01)
    assert 0 < error / energy < most
    total = shown["all,"]
    assert float(total[-1]) == pytest.approx(error / energy, rel=0.01)
    size = Path("small.fpress").stat().st_size
    assert f"{size:,}" in total
    assert f"{size:,} bytes written to small.fpress" in said.out


@pytest.mark.parametrize("codec", list(PRESETS))
def test_any_codec_packs(run: Run, codec: str) -> None:
    said = run("pack", "model.safetensors", "--codec", codec)
    assert said.code == 0, said.err
    assert run("unpack", "model.fpress", "-o", "back.safetensors").code == 0
    back = load_file("back.safetensors")
    assert {name: (t.dtype, t.shape) for name, t in back.items()} == {
        name: (t.dtype, t.shape) for name, t in model().items()
    }


def test_inspect_shows_what_was_packed(run: Run) -> None:
    packed = rows(run("pack", "model.safetensors", "--codec", "int8", columns=120))
    said = run("inspect", "model.fpress", columns=120)
    assert said.code == 0, said.err
    assert said.out.startswith("model ")
    assert 'metadata {"format": "pt"}' in said.out
    shown = rows(said)
    for name in model():
        assert shown[name][:4] == packed[name][:4]
    assert "bfloat16" in shown["embed.weight"]
    # Tensors that are not packed can be tried first, bfloat16 or not.
    tried = rows(run("inspect", "model.safetensors", "--codec", "int8", columns=120))
    assert tried["embed.weight"] == packed["embed.weight"]


@pytest.mark.parametrize("nmse", [None, 1e-2])
def test_the_error_is_kept_to(run: Run, nmse: float | None) -> None:
    words = [] if nmse is None else ["--nmse", nmse]
    said = run("pack", "model.safetensors", *words)
    assert said.code == 0, said.err
    most = nmse or 1e-3
    assert 0.5 * most < float(rows(said)["all,"][-1]) <= most
    assert run("unpack", "model.fpress", "-o", "back.safetensors").code == 0
    assert load_file("back.safetensors")["embed.weight"].dtype == torch.bfloat16


@pytest.mark.parametrize(("text", "most"), [("3000", 3000), ("4.5k", 4500), ("0.006 MB", 6000)])
def test_the_size_is_kept_to(run: Run, text: str, most: int) -> None:
    said = run("pack", "model.safetensors", "--bytes", text)
    assert said.code == 0, said.err
    # One tensor has most of the bytes here, and they jump where its rank changes.
    assert 0.8 * most < Path("model.fpress").stat().st_size <= most


@pytest.mark.parametrize("text", ["100", "250"])
def test_a_size_out_of_reach_is_refused(run: Run, text: str) -> None:
    refused(run("pack", "model.safetensors", "--bytes", text), "bytes")
    assert not Path("model.fpress").exists()


def test_shards_become_one_file(run: Run) -> None:
    tensors = model()
    names = list(tensors)
    weights = {name: f"part-{at % 2}.safetensors" for at, name in enumerate(names)}
    for part in set(weights.values()):
        own = {name: tensors[name] for name in names if weights[name] == part}
        save_file(own, part, metadata=METADATA)
    index = Path("big.safetensors.index.json")
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weights}))
    assert run("pack", index, "--codec", "lossless").code == 0
    assert run("unpack", "big.fpress").code == 0
    back = load_file("big.safetensors")
    assert back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(back[name], tensor)

    for changed, words in (
        (weights | {"lost": "part-0.safetensors"}, ["no shard holds lost"]),
        (weights | {"lost": "../part-0.safetensors"}, ["not beside it"]),
        (weights | {"lost": "part-9.safetensors"}, ["part-9.safetensors", "No such file"]),
        ({"x": 3}, ["damaged"]),
    ):
        index.write_text(json.dumps({"weight_map": changed}))
        refused(run("pack", index, "--codec", "none", "-o", "x.fpress"), *words)
    index.write_text("[1, 2]")
    refused(run("pack", index, "--codec", "none", "-o", "x.fpress"), "big.safetensors.index.json")
    assert not Path("x.fpress").exists()


def test_npz_there_and_back(run: Run) -> None:
    arrays: dict[str, np.ndarray] = {
        "a/b": np.arange(12, dtype=np.float32).reshape(3, 4),
        "fortran": np.asfortranarray(np.arange(6, dtype=np.float64).reshape(2, 3)),
        "big endian": np.arange(5, dtype=">i4"),
        "flag": np.array(True),
    }
    np.savez_compressed("model.npz", **arrays)  # type: ignore[arg-type]
    assert run("pack", "model.npz", "--codec", "lossless", "-o", "n.fpress").code == 0
    for out in ("n.npz", "n.safetensors"):
        said = run("unpack", "n.fpress", "-o", out)
        assert said.code == 0, said.err
    with np.load("n.npz") as back:
        assert set(back.files) == set(arrays)
        for name, array in arrays.items():
            np.testing.assert_array_equal(back[name], array)
            assert back[name].dtype == array.dtype.newbyteorder("=")
    np.testing.assert_array_equal(load_file("n.safetensors")["fortran"], arrays["fortran"])
    assert run("pack", "model.safetensors", "--codec", "none").code == 0
    refused(run("unpack", "model.fpress", "-o", "m.npz"), "bfloat16", "embed.weight")
    refused(run("unpack", "model.fpress", "-o", "m.pt"), "m.pt", ".safetensors")


def test_nothing_is_overwritten_unless_asked(run: Run) -> None:
    words = ("pack", "model.safetensors", "--codec")
    assert run(*words, "int8").code == 0
    first = Path("model.fpress").read_bytes()
    refused(run(*words, "fp16"), "model.fpress: is there already", "--force")
    assert Path("model.fpress").read_bytes() == first
    assert run(*words, "fp16", "--force").code == 0
    assert Path("model.fpress").read_bytes() != first
    refused(run("unpack", "model.fpress"), "model.safetensors: is there already")
    Path("folder.safetensors").mkdir()
    refused(run("unpack", "model.fpress", "--force", "-o", "folder.safetensors"), "is no file")
    refused(run("unpack", "model.fpress", "-o", "nowhere/m.safetensors"), "cannot write", "No such")


def test_a_failure_leaves_no_file_and_the_old_one(run: Run) -> None:
    tensors = model() | {"broken": torch.tensor([1.0, float("nan")])}
    save_file(tensors, "nan.safetensors")
    Path("nan.fpress").write_text("old")
    said = run("pack", "nan.safetensors", "--codec", "int8", "--force")
    refused(said, "'broken'", "NaN or infinity")
    assert Path("nan.fpress").read_text() == "old"
    save_file({"huge": torch.tensor([1e300], dtype=torch.float64)}, "huge.safetensors")
    refused(run("pack", "huge.safetensors", "--codec", "int8"), "'huge'", "float32")
    assert {path.name for path in Path.cwd().iterdir()} == {
        "model.safetensors", "nan.safetensors", "nan.fpress", "huge.safetensors",
    }  # fmt: skip


def test_damage_is_refused_and_leaves_nothing(run: Run) -> None:
    assert run("pack", "model.safetensors", "--codec", "int8").code == 0
    blob = Path("model.fpress").read_bytes()
    damaged = [b"", b"FPU1", blob[:200], blob[:-1], blob + b"\0", b"PK" + blob[2:]]
    damaged += [blob[:at] + bytes([blob[at] ^ 4]) + blob[at + 1 :] for at in (5, 20, 300, 5000)]
    for bad in damaged:
        Path("bad.fpress").write_bytes(bad)
        refused(run("unpack", "bad.fpress"))
        assert not Path("bad.safetensors").exists()
    refused(run("unpack", "missing.fpress"), "missing.fpress", "No such file")
    refused(run("unpack", "."), "directory")
    refused(run("inspect", "."), "directory")


def test_an_update_is_unpacked_only_if_it_is_a_model(run: Run) -> None:
    arrays = {"w": np.ones((2, 3), np.float32), "b": np.ones(3, np.float32)}
    manifest = Manifest.of(arrays)
    frames, _ = encode_frames(manifest, preset("none").plan(manifest), arrays, None)

    def written(kind: Kind, count: int, metadata: str = "") -> Path:
        base = b"" if kind is Kind.MODEL else bytes(16)
        update = Update(
            kind, 0, 0, 0, 0, manifest.digest, frames[:count], base, b"", manifest, metadata
        )
        Path("u.fpress").write_bytes(pack(update))
        return Path("u.fpress")

    refused(run("unpack", written(Kind.DELTA, 2)), "change of a model")
    refused(run("unpack", written(Kind.MODEL, 1)), "1 of 2 tensors")
    for text in ("[1]", '{"a": 1}', "{", "[" * 100_000):
        refused(run("unpack", written(Kind.MODEL, 2, text)), "metadata")
    assert not Path("u.safetensors").exists()
    assert run("unpack", written(Kind.MODEL, 2, '{"a": "b"}')).code == 0
    assert load_file("u.safetensors")["w"].tolist() == [[1, 1, 1], [1, 1, 1]]


def test_a_bomb_is_refused_for_want_of_room(run: Run) -> None:
    """A few bytes that stand for more zeros than any disk has."""
    from dataclasses import replace

    from flowerpress.compression import TensorSpec

    zeros = {"z": np.zeros(1000, np.float32)}
    small = Manifest.of(zeros)
    frames, _ = encode_frames(small, preset("fp16(coder=rans)").plan(small), zeros, None)
    names = [TensorSpec(f"z{at}", (1 << 32,), "float64") for at in range(2)]
    manifest = Manifest(tuple(names))
    both = [replace(frames[0], tensor=at) for at in range(2)]
    update = Update(Kind.MODEL, 0, 0, 0, 0, manifest.digest, both, manifest=manifest)
    Path("bomb.fpress").write_bytes(pack(update))
    assert Path("bomb.fpress").stat().st_size < 200
    from unittest import mock

    usage = mock.Mock(free=10**10)
    with mock.patch("shutil.disk_usage", return_value=usage):
        refused(run("unpack", "bomb.fpress"), "68,719,476,736 bytes", "10,000,000,000 are free")


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["nope.safetensors"], ["nope.safetensors", "No such file"]),
        (["notes.txt"], ["neither an update nor tensors in .npz, .safetensors"]),
        (["text.safetensors"], ["text.safetensors", "cannot be read"]),
        (["none.safetensors"], ["holds no tensors"]),
        (["eighths.safetensors"], ["'w' has dtype F8_E4M3", "convert it to one of F64, F32"]),
        (["liar.npz"], ["liar.npz", "size"]),
        (["."], ["is a folder", "such as eighths.safetensors"]),
        (["model.pt"], ["pickles", "safetensors.torch.save_file"]),
        (["model.safetensors", "--codec", "int88"], ["unknown codec 'int88'", "'int8'"]),
        (["model.safetensors", "--codec", "int8", "--nmse", "1e-3"], ["--nmse", "int8", "rd"]),
        (["model.safetensors", "--codec", "none", "--bytes", "5k"], ["--bytes", "none", "rd"]),
        (["model.safetensors", "--nmse", "1e-3", "--bytes", "5k"], ["give one of them"]),
        (["model.safetensors", "--bytes", "many"], ["--bytes many", "1.5G"]),
    ],
)
def test_a_mistake_is_explained_and_nothing_is_written(
    run: Run, words: list[str], parts: list[str]
) -> None:
    Path("notes.txt").write_text("hello")
    Path("text.safetensors").write_text("hello, this is no header")
    save_file({}, "none.safetensors")
    save_file({"w": torch.ones(4).to(torch.float8_e4m3fn)}, "eighths.safetensors")
    np.save("one.npy", np.zeros(300, np.float32))
    with zipfile.ZipFile("liar.npz", "w") as archive:
        archive.writestr("x.npy", Path("one.npy").read_bytes().replace(b"(300,)", b"(999,)"))
    before = set(Path.cwd().iterdir())
    refused(run("pack", *words), *parts)
    assert set(Path.cwd().iterdir()) == before


def test_progress_is_shown_on_a_terminal_only(run: Run) -> None:
    assert run("pack", "model.safetensors", "--codec", "int8").err == ""
    said = run("pack", "model.safetensors", "--codec", "int8", "--force", FORCE_COLOR="1")
    assert "packing" in said.err
    assert "packing" not in said.out


def test_memory_holds_what_is_packed_and_a_few_tensors(tmp_path: Path) -> None:
    size = 1 << 16
    noise = np.random.default_rng(0).standard_normal((40, size)).astype(np.float32)
    save_numpy({f"w{at:02}": row for at, row in enumerate(noise)}, tmp_path / "m.safetensors")
    stored = opened(tmp_path / "m.safetensors")
    tracemalloc.start()
    try:
        _, costs = pack_tensors(stored, preset("int8").plan(stored.manifest), lambda _: None)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < sum(cost.bytes for cost in costs) + 8 * 4 * size + (1 << 20)
