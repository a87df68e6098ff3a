"""docs/wire-format.md says what the package does: its example, its tables, and its decoder."""

from __future__ import annotations

import importlib.util
import json
import math
import re
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from flowerpress.client.exchange import link
from flowerpress.compression import DTYPES, Manifest, TensorSpec, decode_frames
from flowerpress.compression.coders.frequencies import KEPT
from flowerpress.compression.coders.registry import REGISTRY
from flowerpress.compression.stages import STAGES
from flowerpress.protos import exchange, exchange_pb2, window
from flowerpress.protos import update_pb2 as pb
from flowerpress.protos.envelope import Kind, pack, unpack

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "wire-format.md").read_text()
EXAMPLE = Manifest((TensorSpec("w", (4, 5)), TensorSpec("b", (3,)), TensorSpec("n", (), "int64")))


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


STRANGER = _load(Path(__file__).parent / "stranger.py")
UPDATES = sorted((ROOT / "tests" / "golden" / "updates").glob("*.fpu"))
PACKED = sorted((ROOT / "tests" / "golden" / "checkpoints").glob("*.fpress"))
CODED = sorted((ROOT / "tests" / "golden" / "coders").glob("*.json"))
CROSSED = sorted((ROOT / "tests" / "golden" / "features").glob("*.json"))


def example() -> bytes:
    """The hex digits of the worked example, without its remarks."""
    (block,) = re.findall(r"## A worked example\n.*?```\n(.*?)```", PAGE, re.DOTALL)
    lines = [re.match(r"(?:[0-9a-f]{2} ?)+(?=  |$)", line) for line in block.splitlines()]
    assert all(lines)
    return b"".join(bytes.fromhex(match[0]) for match in lines if match)


def expected() -> dict[str, NDArray[Any]]:
    w = np.zeros((4, 5), np.float32)
    w[0, 2], w[1, 4], w[3, 1] = -0.5, 0.5, 0.5
    return {"w": w, "b": np.array([0, -2, 0], np.float32), "n": np.array(7)}


def test_the_worked_example() -> None:
    update = unpack(example(), EXAMPLE)
    assert (update.kind, update.run, update.round) == (Kind.DELTA, 0x1122334455667788, 3)
    assert (update.client, update.sequence, update.base) == (0x99, 2, bytes(range(16)))
    for index, decoded in decode_frames(EXAMPLE, update.frames):
        spec = EXAMPLE.specs[index]
        np.testing.assert_array_equal(decoded.dense().reshape(spec.shape), expected()[spec.name])
    assert pack(update) == example()


def test_a_stranger_reads_the_worked_example() -> None:
    specs = [(spec.name, spec.shape, spec.dtype) for spec in EXAMPLE.specs]
    decoded = STRANGER.decode(example(), specs)
    for name, array in expected().items():
        np.testing.assert_array_equal(decoded[name], array)


@pytest.mark.parametrize("path", UPDATES, ids=[path.stem for path in UPDATES])
def test_a_stranger_reads_the_golden_updates(path: Path) -> None:
    write = _load(path.parent / "write.py")
    model, references = write.model(), write.references(path.stem)
    specs = [(spec.name, spec.shape, spec.dtype) for spec in Manifest.of(model).specs]
    header = pb.UpdateHeader.FromString(STRANGER.Bytes(path.read_bytes()[12:]).blob())
    known = None if header.HasField("manifest") else specs
    decoded = STRANGER.decode(path.read_bytes(), known, references)
    assert list(decoded) == list(model)
    with np.load(path.with_suffix(".npz"), allow_pickle=False) as values:
        for i, array in enumerate(decoded.values()):
            assert array.tobytes() == values[f"{i:02}"].tobytes()


@pytest.mark.parametrize("path", PACKED, ids=[path.stem for path in PACKED])
def test_a_stranger_reads_the_golden_models(path: Path) -> None:
    decoded = STRANGER.decode(path.read_bytes(), None)
    expected = load_file(path.with_suffix(".safetensors"))
    assert decoded.keys() == expected.keys()
    for name, tensor in expected.items():
        # torch turns bfloat16 into float32, which is how NumPy has to hold it.
        wide = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
        np.testing.assert_array_equal(decoded[name], wide.numpy())
        assert decoded[name].dtype == wide.numpy().dtype


@pytest.mark.parametrize("path", CODED, ids=[path.stem for path in CODED])
def test_a_stranger_reads_the_golden_bodies(path: Path) -> None:
    case = json.loads(path.read_text())
    body, symbols = bytes.fromhex(case["body"]), case["symbols"]
    if "coder" in case:
        assert STRANGER.coded(case["coder"], body, len(symbols), case["alphabet"]) == symbols
    else:
        assert STRANGER.positions(body, len(symbols), case["size"]) == symbols


@pytest.mark.parametrize("path", CROSSED, ids=[path.stem for path in CROSSED])
def test_a_stranger_reads_the_golden_features(path: Path) -> None:
    case = json.loads(path.read_text())
    batch, channels, *rest = case["shape"]
    symbols, values = STRANGER.features(
        bytes.fromhex(case["body"]), bytes.fromhex(case["tables"]), batch * math.prod(rest)
    )
    assert symbols == case.get("symbols", symbols)
    assert sha256(np.array(symbols, "<i4").tobytes()).hexdigest() == case["symbols_sha256"]
    samples = values.reshape(channels, batch, *rest).swapaxes(0, 1)
    assert sha256(samples.astype("<f4").tobytes()).hexdigest() == case["values_sha256"]


def test_the_tables_name_everything() -> None:
    assert " ".join(DTYPES) in PAGE
    for stage in STAGES:
        assert re.search(rf"^\| {stage.tag} \| {stage.name} \|", PAGE, re.MULTILINE)
    for field in pb.UpdateHeader.DESCRIPTOR.fields:
        assert re.search(rf"^\| {field.number} \| `{field.name}` \|", PAGE, re.MULTILINE)
    headings = " ".join(re.findall(r"^### (.*)$", PAGE, re.MULTILINE))
    for tag, coder in REGISTRY.items():
        assert f"{tag} {coder.name}" in headings
    assert f"K = {', '.join(map(str, KEPT))}" in PAGE
    assert STRANGER.KEPT == KEPT


def test_the_exchange_s_tables_name_everything() -> None:
    (section,) = re.findall(r"^## The exchange\n(.*?)^## ", PAGE, re.DOTALL | re.MULTILINE)
    assert exchange.METHOD in section
    kinds = re.findall(r"^\| ([A-Z]+) (\d+) \| (?:device|service|who|the)", section, re.MULTILINE)
    assert [(name, int(number)) for name, number in kinds] == [
        (kind.name, kind.value) for kind in exchange.Kind
    ]
    codes = re.findall(r"^\| (\d+) ([A-Z]+) \| .* \| (.*) \|$", section, re.MULTILINE)
    assert [(int(number), name) for number, name, _ in codes] == [
        (code.value, code.name) for code in exchange.Code
    ]
    for number, _, what in codes:
        assert (what == "gives up") == (int(number) not in link._AGAIN)
    for message in (exchange_pb2.ExchangeTerms, exchange_pb2.BlobClaim, exchange_pb2.Exchange):
        for field in message.DESCRIPTOR.fields:
            assert f"`{field.name}`" in section, field.name
    assert window.SMALLEST_WINDOW == 16 << 10
    assert window.LARGEST_CHUNK == 512 << 10
    assert exchange.LARGEST_MESSAGE == 1 << 20
