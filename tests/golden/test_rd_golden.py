"""Rate-distortion bodies that were written once and must decode forever: see tests/golden/rd."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from flowerpress.compression import FormatError, TensorSpec, recipe
from flowerpress.compression.rd.body import Body
from flowerpress.compression.rd.codec import RateDistortion
from flowerpress.compression.rd.views import FLAT, KERNEL, TURNED
from flowerpress.compression.wire import Reader

HERE = Path(__file__).parent


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"golden_{path.parent.name}_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


WRITE = _load(HERE / "rd" / "write.py")
STRANGER = _load(HERE.parent / "wire" / "stranger.py")


def found(name: str) -> dict[str, Any]:
    out: dict[str, Any] = json.loads((HERE / "rd" / f"{name}.json").read_text())
    return out


def head(name: str) -> Body:
    case = found(name)
    return Body.read(Reader(memoryview(bytes.fromhex(case["body"])), name), tuple(case["shape"]))


def test_every_case_has_its_file() -> None:
    assert {path.stem for path in (HERE / "rd").glob("*.json")} == set(WRITE.NAMES)


@pytest.mark.parametrize("name", WRITE.NAMES)
def test_golden_body_decodes(name: str) -> None:
    case = found(name)
    values = WRITE.decode(case, name)
    assert WRITE.digest(values) == case["sha256"]
    x, step, _ = WRITE.case(name)
    assert x.shape == tuple(case["shape"])
    step = max(step, float(np.abs(x).max()) * 2**-22)
    assert float(((values - x.reshape(-1).astype(np.float64)) ** 2).mean()) < step**2 / 4


@pytest.mark.parametrize("name", WRITE.NAMES)
def test_a_stranger_reads_it(name: str) -> None:
    case = found(name)
    text, body = recipe(RateDistortion(case["step"])), bytes.fromhex(case["body"])
    reference = WRITE.case(name)[2]
    values = STRANGER.frame(STRANGER.Bytes(body), text, tuple(case["shape"]), "float32", reference)
    assert WRITE.digest(values) == case["sha256"]


def test_cases_are_what_they_are_named_for() -> None:
    heads = {name: head(name) for name in WRITE.NAMES}
    assert {one.view for one in heads.values()} == {FLAT, TURNED, KERNEL}
    assert {one.lanes for one in heads.values()} >= {0, 1, 2}
    for name in ("matrix-reference", "convolution-reference"):
        assert heads[name].left_basis
        assert heads[name].right_basis
    assert heads["own-step"].step is not None
    assert heads["dead"].rows is not None
    assert heads["dead"].columns is not None
    assert any(one.exponents and one.shifts for one in heads.values())
    assert any(one.exponents and not one.shifts for one in heads.values())
    assert {one.signs for one in heads.values()} == {True, False}
    assert any(one.low[-1] for one in heads.values())


def test_a_golden_body_needs_its_reference() -> None:
    case = found("matrix-reference")
    codec, spec = RateDistortion(case["step"]), TensorSpec("w", tuple(case["shape"]))
    with pytest.raises(FormatError, match="reference"):
        codec.decode(memoryview(bytes.fromhex(case["body"])), spec)
