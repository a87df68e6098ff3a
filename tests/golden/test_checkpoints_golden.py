"""Models that were packed once and must unpack forever: see tests/golden/checkpoints."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file

from flowerpress.compression import DTYPES
from flowerpress.protos.envelope import unpack

FOLDER = Path(__file__).parent / "checkpoints"


def _script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("golden_checkpoints", FOLDER / "write.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


WRITE = _script()
NAMES = list(WRITE.CASES)


def test_every_case_has_its_files() -> None:
    assert {path.stem for path in FOLDER.glob("*.fpress")} == set(NAMES)
    assert {path.stem for path in FOLDER.glob("*.safetensors")} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_golden_model_unpacks_to_the_same_bytes(name: str) -> None:
    blob = (FOLDER / f"{name}.fpress").read_bytes()
    assert WRITE.decode(blob) == (FOLDER / f"{name}.safetensors").read_bytes()
    assert WRITE.encode(name) == blob
    sent = unpack(blob, None).manifest
    assert sent is not None
    assert [spec.dtype for spec in sent.specs] == list(DTYPES)


def test_torch_reads_what_was_unpacked() -> None:
    exact, rough = (load_file(FOLDER / f"{name}.safetensors") for name in ("lossless", "int8"))
    assert exact["bfloat16.weight"].dtype == torch.bfloat16
    for name, tensor in exact.items():
        assert rough[name].dtype == tensor.dtype
        if tensor.is_floating_point():
            torch.testing.assert_close(rough[name].double(), tensor.double(), rtol=0.01, atol=0.03)
        else:
            assert torch.equal(rough[name], tensor)
