"""Tables and streams that were written once and must decode forever: see tests/golden/features."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
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


DECODER = """
import importlib.util, json, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("features_write", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
for path in map(Path, sys.argv[2:]):
    case = json.loads(path.read_text())
    print(json.dumps(module.decoded(case)))
"""


def test_another_process_on_a_plain_processor_decodes_the_same() -> None:
    done = subprocess.run(
        [sys.executable, "-c", DECODER, str(HERE / "write.py"), *map(str, FILES)],
        env=os.environ | {"NUMBA_CPU_NAME": "generic", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    for path, line in zip(FILES, done.stdout.splitlines(), strict=True):
        case = json.loads(path.read_text())
        assert json.loads(line) == {name: case[name] for name in PROMISED}, path
