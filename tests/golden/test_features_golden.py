"""Tables and streams that were written once and must decode forever: see tests/golden/features."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from flowerpress.compression.features import Tables, decode

HERE = Path(__file__).parent / "features"
FILES = sorted(HERE.glob("*.json"))
PROMISED = ("digest", "symbols_sha256", "values_sha256")


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("features_write", HERE / "write.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_golden_features_decode(path: Path) -> None:
    case = json.loads(path.read_text())
    assert script().decoded(case) == {name: case[name] for name in PROMISED}
    tables = Tables.from_bytes(bytes.fromhex(case["tables"]))
    assert tables.to_bytes().hex() == case["tables"]
    if "symbols" in case:
        body = bytes.fromhex(case["body"])
        assert decode(body, tables, len(case["symbols"][0])).tolist() == case["symbols"]


def test_golden_features_cover_every_mode() -> None:
    firsts = {path.stem: bytes.fromhex(json.loads(path.read_text())["body"])[0] for path in FILES}
    assert {first & 7 for first in firsts.values()} == {0, 1, 2, 3}
    assert {name for name, first in firsts.items() if first & 8} == {"escapes", "escapes-only"}
