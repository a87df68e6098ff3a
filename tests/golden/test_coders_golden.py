"""Bodies that were written once and must decode forever: see tests/golden/coders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flowerpress.compression.coders.registry import REGISTRY, coder
from flowerpress.compression.positions import decode_positions
from flowerpress.compression.wire import Reader

FILES = sorted((Path(__file__).parent / "coders").glob("*.json"))


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_golden_body_decodes(path: Path) -> None:
    case = json.loads(path.read_text())
    body, symbols = bytes.fromhex(case["body"]), case["symbols"]
    if "coder" in case:
        decoded = coder(case["coder"]).decode(body, len(symbols), case["alphabet"]).tolist()
    else:
        decoded = decode_positions(Reader(body, "positions"), len(symbols), case["size"]).tolist()
    assert decoded == symbols


def test_golden_bodies_cover_every_tag_and_mode() -> None:
    cases = [json.loads(path.read_text()) for path in FILES]
    assert {case["coder"] for case in cases if "coder" in case} == set(REGISTRY)
    assert {bytes.fromhex(case["body"])[0] for case in cases if "size" in case} == set(range(6))
    rans = [bytes.fromhex(case["body"])[0] for case in cases if case.get("coder") == 4]
    assert {first & 3 for first in rans} == {0, 1, 2, 3}
    assert {first >> 2 & 7 for first in rans} == {0, 1, 3, 5}
