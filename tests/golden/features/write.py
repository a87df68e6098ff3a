"""Writes the golden features that are not there yet: ``python tests/golden/features/write.py``.

Tables and streams are written once and decoded forever, so existing files are never touched. A
file holds one JSON object: tables and body (hex), the tables' digest, the shape (B, C, ...) of the
features, and SHA-256 of the symbols (C, N) as little-endian int32 and of the values as float32;
small files also hold the symbols.
"""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.features import Tables, decode, encode

HERE = Path(__file__).parent
MOST_LISTED = 600


def decoded(case: dict[str, Any]) -> dict[str, str]:
    """Return what a file promises, from its tables and its body alone."""
    tables = Tables.from_bytes(bytes.fromhex(case["tables"]))
    shape = tuple(case["shape"])
    count = int(np.prod(shape)) // shape[1]
    symbols = decode(bytes.fromhex(case["body"]), tables, count)
    return {"digest": tables.digest.hex()} | hashes(symbols, tables.restore(symbols, shape))


def hashes(symbols: NDArray[np.int32], values: NDArray[np.float32]) -> dict[str, str]:
    return {
        "symbols_sha256": sha256(symbols.astype("<i4").tobytes()).hexdigest(),
        "values_sha256": sha256(values.astype("<f4").tobytes()).hexdigest(),
    }


def write(name: str, symbols: NDArray[np.int32], shape: tuple[int, ...], tables: Tables) -> None:
    path = HERE / f"{name}.json"
    if path.exists():
        return
    case: dict[str, Any] = {
        "shape": shape,
        "tables": tables.to_bytes().hex(),
        "digest": tables.digest.hex(),
        **hashes(symbols, tables.restore(symbols, shape)),
        "body": encode(symbols, tables).hex(),
    }
    if symbols.size <= MOST_LISTED:
        case["symbols"] = symbols.tolist()
    path.write_text(json.dumps(case) + "\n")


def scaled(symbols: NDArray[np.int32], version: int) -> Tables:
    rng = np.random.default_rng(version)
    c = len(symbols)
    centres = rng.normal(size=c).astype(np.float32)
    return Tables.from_symbols(version, symbols, centres, rng.uniform(0.1, 2, c).astype(np.float32))


def main() -> None:
    rng = np.random.default_rng(6)

    def drawn(c: int, n: int, spread: float) -> NDArray[np.int32]:
        return np.rint(rng.laplace(0, spread, (c, n))).astype(np.int32)

    batch = drawn(4, 2 * 49, 1.5)
    write("batch", batch, (2, 4, 7, 7), scaled(batch, 1))
    rare = drawn(24, 49, 0.15)
    write("skewed", rare, (1, 24, 7, 7), scaled(drawn(24, 3000, 0.15), 300))
    still = np.zeros((2, 9), np.int32)
    write("still", still, (3, 2, 3), scaled(still, 2))
    far: NDArray[np.int32] = np.array(
        [[2**30, -(2**30), 0, 10**6, -(10**6), 1], [3, 3, 4, 2, 3, 5]], np.int32
    )
    write("escapes", far, (6, 2), scaled(drawn(2, 40, 1.0), 3))
    one: NDArray[np.float32] = np.ones(1, np.float32)
    nothing = Tables.from_probabilities(2**32 - 1, np.array([-4], np.int32), [np.ones(1)], one, one)
    write("escapes-only", far[:1], (1, 1, 6), nothing)
    for name, n in (("2-lanes", 4000), ("4-lanes", 7500), ("8-lanes", 15000)):
        many = drawn(3, n + 1, 6.0)
        write(name, many, (1, 3, n + 1), scaled(many, 4))


if __name__ == "__main__":
    main()
