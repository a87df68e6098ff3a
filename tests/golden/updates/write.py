"""Writes the golden updates that are not there yet: ``python tests/golden/updates/write.py``.

An update is written once and decoded forever, so existing files are never touched. Beside each
``NAME.fpu`` stands ``NAME.npz``: the arrays that it decodes to. Tensors come from integer
arithmetic, which gives the same bits on every machine and with every version of every library.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression import (
    Grouped,
    Manifest,
    Plan,
    TensorSpec,
    apply_frames,
    encode_frames,
    preset,
)
from flowerpress.compression.grouped import rows_of
from flowerpress.compression.presets.base import RAW
from flowerpress.protos.envelope import Kind, Update, pack

HERE = Path(__file__).parent
CASES = {
    "none": "none",
    "lossless": "lossless(coder=rans)",
    "lossless-zstd": "lossless(coder=zstd)",
    "fp16": "fp16",
    "fp16-rans": "fp16(coder=rans)",
    "int8": "int8",
    "int8-huffman": "int8(coder=huffman)",
    "topk": "topk(density=0.1)",
    "qsgd": "qsgd(levels=3, bucket=64)",
    "stc-smallest": "stc(density=0.1)",
    "stc-address": "stc(density=0.1, positions=address)",
    "stc-golomb": "stc(density=0.1, positions=golomb)",
    "stc-rans": "stc(density=0.1, positions=rans)",
    "stc-bitmap": "stc(density=0.1, positions=bitmap)",
    "fedzip": "fedzip(density=0.1)",
    "eden": "eden(bits=3)",
    "eden-half": "eden(bits=0.5, scale=smallest, rotations=1)",
    "drive": "drive",
    "codebook": "codebook(clusters=4)",
    "codebooks": "codebook(clusters=5, group=100)",
    "powersgd": "powersgd(rank=2)",
    "powersgd-float32": "powersgd(rank=1, factors=float32, coder=zstd)",
    "lowrank": "lowrank(bits=1, rank=2)",
    "fedzip-huffman": "fedzip(density=0.3, encoding=huffman)",
    "fedzip-address": "fedzip(density=0.1, encoding=address)",
    "fedzip-gap": "fedzip(density=0.3, clusters=6, encoding=gap)",
    "bf16": "bf16(coder=rans)",
    "fp8": "fp8",
    "fp8-e5m2": "fp8(format=e5m2, scale=tensor, coder=raw)",
    "int8-tensor": "int8(scale=tensor)",
    "int4": "int4(block=32)",
    "int4-channel": "int4(scale=channel, coder=pack)",
    "nf4": "nf4(block=16)",
    "topk-global": "topk(density=0.2, scope=global, values=fp32)",
    "topk-int8": "topk(density=0.3, values=int8)",
    "threshold": "threshold(at=1.5, values=bf16)",
    "randomk": "randomk(density=0.2)",
    "rowsparse": "rowsparse(values=int8)",
    "structured": "structured(density=0.3, values=e4m3)",
    "efsign": "efsign",
    "compeft": "compeft(density=0.2, alpha=1.5)",
    "sparseloco": "sparseloco(k=6, chunk=64)",
    "int8-golomb": "int8(coder=golomb)",
    "rd": "rd(step=0.3)",
    "rd-fine": "rd(step=0.004)",
    "rd-budget": "rd(target_bytes=700)",
    "rd-reference": "rd(step=0.3)",
    "rd-fast": "rd(step=0.1, fast=true)",
    "intn": "intn(bits=5)",
    "qsgd-bits": "qsgd(bits=2)",
    "grouped": "stc(density=0.1)",
}
# What the cases in groups of rows have in place of one codec.
GROUPS = {"grouped": ("stc(density=0.1)", "int8", "int8", "fp16", "nf4(block=16)")}
# Their bytes depend on another library: its compressor, its stream of random numbers, the order in
# which it adds up products. They must decode, and need not be written the same way again.
NOT_OURS = (
    "lossless-zstd",
    "qsgd",
    "qsgd-bits",
    "eden",
    "eden-half",
    "drive",
    "powersgd",
    "powersgd-float32",
    "lowrank",
    "randomk",
    "rd",
    "rd-fine",
    "rd-budget",
    "rd-reference",
)


def bell(n: int, seed: int) -> NDArray[np.float32]:
    """Return ``n`` values near a normal distribution, multiples of 2**-10: sums of six integers."""
    state, out = seed, []
    for _ in range(n):
        total = 0
        for _ in range(6):
            state = (state * 6364136223846793005 + 1442695040888963407) % (1 << 64)
            total += state >> 54
        out.append((total - 3069) / 1024)
    return np.array(out, np.float32)


def model() -> dict[str, NDArray[Any]]:
    """Return a small model with every kind of tensor."""
    return {
        "conv.weight": bell(216, 1).reshape(8, 3, 3, 3),
        "conv.bias": bell(8, 2),
        "norm.gamma": bell(8, 3).reshape(8, 1),
        "head.weight": (bell(300, 4) / 64).reshape(10, 30),
        "half": bell(40, 5).astype(np.float16).reshape(4, 10),
        "double": bell(33, 6).astype(np.float64),
        "scale": np.float32(0.75).reshape(()),
        "empty": np.zeros((0, 4), np.float32),
        "steps": np.arange(-3, 3, dtype=np.int64) << 30,
        "mask": np.arange(11) % 3 == 0,
    }


def references(name: str) -> dict[str, NDArray[Any]]:
    """Return what both ends hold in the cases that are named ``...-reference``: near the model."""
    if not name.endswith("-reference"):
        return {}
    return {
        key: (array + bell(array.size, 7).reshape(array.shape) / 8).astype(array.dtype)
        for key, array in model().items()
        if array.dtype.kind == "f"
    }


def plan_of(name: str, manifest: Manifest) -> Plan:
    """Return the codecs of a case."""
    texts = GROUPS.get(name)
    if texts is None:
        return preset(CASES[name]).plan(manifest)

    def grouped(spec: TensorSpec) -> Grouped:
        shapes = [(b - a, *spec.shape[1:]) for a, b in rows_of(spec, len(texts))]
        parts = [TensorSpec(spec.name, shape, spec.dtype) for shape in shapes]
        return Grouped([preset(t).codec(part) for t, part in zip(texts, parts, strict=True)])

    return Plan(tuple(grouped(spec) if spec.is_float else RAW for spec in manifest.specs))


def encode(name: str) -> bytes:
    """Return the update of a case; the cases take turns with the kinds of envelope."""
    arrays = model()
    manifest = Manifest.of(arrays)
    number = list(CASES).index(name)
    plan = plan_of(name, manifest)
    frames, _ = encode_frames(
        manifest, plan, arrays, np.random.default_rng(0), references=references(name)
    )
    delta = bool(number % 2)
    return pack(
        Update(
            kind=Kind.DELTA if delta else Kind.MODEL,
            run=0x0123456789ABCDEF,
            round=number + 1,
            client=0xFEDCBA9876543210 if delta else 0,
            sequence=1000 + number,
            manifest_digest=manifest.digest,
            frames=frames,
            base=bytes(range(16)) if delta else b"",
            result=b"" if delta else bytes(range(16, 32)),
            manifest=None if delta else manifest,
        )
    )


def decode(blob: bytes, name: str) -> dict[str, NDArray[Any]]:
    """Return the values of every frame of a case."""
    from flowerpress.protos.envelope import unpack

    manifest = Manifest.of(model())
    frames = unpack(blob, manifest).frames
    return apply_frames(manifest, {}, frames, change=False, references=references(name))


def main() -> None:
    for name in CASES:
        path = HERE / f"{name}.fpu"
        if not path.exists():
            path.write_bytes(encode(name))
            arrays = decode(path.read_bytes(), name)
            # np.savez would take the names for files; a position is enough.
            with (HERE / f"{name}.npz").open("wb") as stream:
                numbered = {f"{i:02}": array for i, array in enumerate(arrays.values())}
                np.savez_compressed(stream, **numbered)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
