"""Writes the golden rate-distortion bodies that are not there yet: run this file.

A body is written once and decoded forever, so existing files are never touched. ``NAME.json`` holds
a body with what a decoder needs beside it, and the SHA-256 of the little-endian float32 elements
that it decodes to. The encoder may learn to choose better, and adds up products in the order of a
library, so bodies need not be written the same way again. References do: they come from integers.
"""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression import Context, TensorSpec
from flowerpress.compression.rd.codec import RateDistortion

HERE = Path(__file__).parent
Array = NDArray[np.float32]


def bell(shape: tuple[int, ...], seed: int) -> NDArray[np.int64]:
    """Return integers near a normal distribution with a deviation of about 724."""
    state, out = seed, []
    for _ in range(int(np.prod(shape))):
        total = 0
        for _ in range(6):
            state = (state * 6364136223846793005 + 1442695040888963407) % (1 << 64)
            total += state >> 54
        out.append(total - 3069)
    return np.array(out, np.int64).reshape(shape)


def thin(m: int, n: int, seed: int) -> NDArray[np.int64]:
    """Return a matrix of rank 3 with elements of about a million."""
    left = bell((m, 3), seed) * np.array([4, 2, 1])
    out: NDArray[np.int64] = left @ bell((3, n), seed + 1) // 2
    return out


def convolution(seed: int, size: int = 3) -> NDArray[np.int64]:
    """Return kernels (20, 16, size, size), close to low rank over the input channels."""
    places = thin(size * size * 20, 16, seed).reshape(size, size, 20, 16)
    return np.ascontiguousarray(places.transpose(2, 3, 0, 1))


def case(name: str) -> tuple[Array, float, Array | None]:
    """Return a tensor, a step, and what both ends hold, or None."""
    near: NDArray[np.int64] | None = None
    step = 0.5
    match name:
        case "matrix":
            x = thin(40, 60, 1) + (bell((40, 60), 2) << 8)
        case "matrix-noise":
            x, step = bell((70, 50), 3) << 10, 1.0
        case "matrix-both":
            x, step = thin(50, 60, 4) + (bell((50, 60), 5) << 8), 0.2
        case "matrix-reference":
            x = thin(40, 60, 6)
            near = x + (bell((40, 60), 7) << 7)
        case "convolution":
            x = convolution(8) + (bell((20, 16, 3, 3), 9) << 8)
        case "convolution-5":
            x, step = convolution(10, 5), 1.0
        case "convolution-reference":
            x = convolution(11)
            near = x + (bell(x.shape, 12) << 7)
        case "vector":
            x = bell((300,), 13) << 10
        case "vector-long":
            x, step = bell((16400,), 14) << 10, 0.3
        case "narrow":
            x = bell((200, 3), 15) << 10
        case "dead":
            x = bell((60, 24), 16) << 10
            x[bell((60,), 17) < 300] = 0
            x[:, 5:11] = 0
        case "outliers":
            x = bell((30, 30), 18)
            x[::7, ::5] <<= 22
        case "own-step":
            x, step = bell((20, 30), 19) << 40, 1e-5
        case _:
            assert name == "scalar"
            x, step = np.array(3 << 20), 0.1
    unit = np.float64(2.0**-20)
    reference = None if near is None else (near * unit).astype(np.float32)
    return np.asarray(x * unit, np.float32), step, reference


NAMES = (
    *("matrix", "matrix-noise", "matrix-both", "matrix-reference", "convolution", "convolution-5"),
    *("convolution-reference", "vector", "vector-long", "narrow", "dead", "outliers", "own-step"),
    "scalar",
)


def decode(found: dict[str, Any], name: str) -> NDArray[Any]:
    """Return the elements of a golden body, flat."""
    codec, spec = RateDistortion(found["step"]), TensorSpec("w", tuple(found["shape"]))
    return codec.decode(memoryview(bytes.fromhex(found["body"])), spec, case(name)[2]).dense()


def digest(values: NDArray[Any]) -> str:
    """Return the SHA-256 of elements as little-endian float32."""
    return sha256(values.astype("<f4").tobytes()).hexdigest()


def main() -> None:
    for name in NAMES:
        path = HERE / f"{name}.json"
        if not path.exists():
            x, step, reference = case(name)
            spec, codec = TensorSpec("w", x.shape), RateDistortion(step)
            body = codec.encode(x, spec, Context(reference=reference))
            found = {"shape": x.shape, "step": codec.step, "body": body.hex()}
            found["sha256"] = digest(decode(found, name))
            path.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
