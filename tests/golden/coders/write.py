"""Writes the golden bodies that are not there yet: ``python tests/golden/coders/write.py``.

A golden body is written once and decoded forever, so existing files are never touched. A file
holds one JSON object: coder (wire tag) or positions (size), alphabet, symbols and body (hex).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.coders import rans
from flowerpress.compression.coders.registry import coder_named
from flowerpress.compression.positions import PositionMode, encode_positions

HERE = Path(__file__).parent


def write(name: str, content: dict[str, Any]) -> None:
    path = HERE / f"{name}.json"
    if not path.exists():
        path.write_text(json.dumps(content) + "\n")


def symbols(name: str, case: str, values: NDArray[np.int64], alphabet: int) -> None:
    coder = coder_named(name)
    body = coder.encode(values, alphabet)
    content = {"coder": coder.tag, "alphabet": alphabet, "symbols": values.tolist()}
    write(f"{name}-{case}", content | {"body": body.hex()})


def positions(case: str, where: NDArray[np.int64], size: int, mode: PositionMode) -> None:
    body = encode_positions(where, size, mode)
    write(f"positions-{case}", {"size": size, "symbols": where.tolist(), "body": body.hex()})


def main() -> None:
    rng = np.random.default_rng(20)
    levels = np.clip(np.rint(rng.laplace(0, 2.5, 120)) + 15, 0, 30).astype(np.int64)
    patterns = rng.standard_normal(80).astype(np.float16).view(np.uint16).astype(np.int64)
    gaps = np.minimum(rng.geometric(2e-4, 60) - 1, 2**31 - 1)
    wide = np.append(gaps, [2**32 - 1, 0])
    for name in ("raw", "pack", "zstd", "rans", "huffman", "golomb"):
        symbols(name, "levels", levels, 31)
        symbols(name, "wide", wide, 2**32)
        symbols(name, "single", np.full(9, 200), 1000)
    symbols("rans", "uniform", rng.integers(0, 256, 40), 256)
    symbols("rans", "ternary", rng.choice(3, 300, p=[0.04, 0.93, 0.03]), 3)
    for name in ("rans", "huffman"):
        symbols(name, "halves", patterns, 1 << 16)
        symbols(name, "gaps", gaps, 1 << 31)
    symbols("background", "few", rng.choice(3, 300, p=[0.01, 0.98, 0.01]), 3)
    symbols("background", "many", rng.choice(3, 100), 3)
    for mode in ("address", "golomb", "rans", "bitmap"):
        positions(mode, np.sort(rng.choice(2000, 50, replace=False)), 2000, mode)
    positions("bitmap-half", np.flatnonzero(rng.random(500) < 0.5), 500, "bitmap")
    positions("bitmap-dense", np.flatnonzero(rng.random(4000) < 0.15), 4000, "bitmap")
    positions("bitmap-runs", np.flatnonzero(np.arange(3000) % 24 < 9), 3000, "bitmap")
    for lanes in (2, 8, 32):
        # As if the body were long enough for that many lanes.
        rans._BYTES_PER_LANE, rans._MOST_LANES = 1, lanes
        symbols("rans", f"{lanes}-lanes", np.tile(levels, 8 if lanes == 32 else 3), 31)


if __name__ == "__main__":
    main()
