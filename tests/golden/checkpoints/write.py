"""Writes the golden packed models that are missing: ``python tests/golden/checkpoints/write.py``.

A model is packed once and unpacked forever, so existing files are never touched. Beside each
``NAME.fpress`` stands ``NAME.safetensors``, the file that ``flowerpress unpack`` makes of it, byte
for byte. There is a tensor of every dtype.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression import DTYPES, Manifest, TensorSpec, encode_frames, preset
from flowerpress.protos.envelope import Kind, Update, pack, unpack
from flowerpress.simulations.checkpoints.packing import metadata_of, unpacked
from flowerpress.simulations.checkpoints.written import WRITERS

HERE = Path(__file__).parent
CASES = {"lossless": "lossless(coder=rans)", "int8": "int8", "bf16": "bf16"}
METADATA = '{"format": "pt", "note": "\\u00e9"}'


def manifest() -> Manifest:
    return Manifest(tuple(TensorSpec(f"{dtype}.weight", (3, 7), dtype) for dtype in DTYPES))


def model() -> dict[str, NDArray[Any]]:
    counted = np.arange(21, dtype=np.int64).reshape(3, 7) - 5
    return {
        spec.name: spec.cast(counted * 0.37 if spec.is_float else abs(counted) % 7 % 200)
        for spec in manifest().specs
    }


def encode(name: str) -> bytes:
    plan = preset(CASES[name]).plan(manifest())
    frames, _ = encode_frames(manifest(), plan, model(), None)
    digest = manifest().digest
    update = Update(Kind.MODEL, 0, 0, 0, 0, digest, frames, manifest=manifest(), metadata=METADATA)
    return pack(update)


def decode(blob: bytes) -> bytes:
    """Return the model file that a packed model stands for."""
    update = unpack(blob, None)
    assert update.manifest is not None
    out = io.BytesIO()
    tensors = unpacked(update, lambda _: None)
    WRITERS[".safetensors"](out, update.manifest, metadata_of(update), tensors)
    return out.getvalue()


def main() -> None:
    for name in CASES:
        path = HERE / f"{name}.fpress"
        if not path.exists():
            path.write_bytes(encode(name))
            path.with_suffix(".safetensors").write_bytes(decode(path.read_bytes()))


if __name__ == "__main__":
    main()
