"""An update is understood by another process from its bytes alone, without torch and Flower."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from flowerpress.compression import Manifest, encode_frames, preset
from flowerpress.protos.envelope import Kind, Update, pack

CASES = [
    "none",
    "lossless",
    "lossless(coder=rans)",
    "fp16",
    "fp16(coder=rans)",
    "int8",
    "int8(coder=huffman)",
    "topk(density=0.02)",
    "qsgd",
    "stc",
    "stc(density=0.05, positions=address)",
    "stc(density=0.05, positions=golomb)",
    "stc(density=0.05, positions=rans)",
    "stc(density=0.05, positions=bitmap)",
    "fedzip",
    "bf16(coder=rans)",
    "fp8",
    "fp8(format=e5m2, scale=tensor)",
    "int4",
    "nf4",
    "topk(density=0.1, scope=global, values=fp32)",
    "randomk(values=qsgd)",
    "rowsparse(values=int8)",
    "structured(values=nf4)",
    "compeft",
    "sparseloco(k=3, chunk=50)",
]

# Runs elsewhere: knows neither the presets nor the tensors, only the files.
DECODER = """
import hashlib, json, sys
from pathlib import Path
from flowerpress.compression import decode_frames
from flowerpress.protos.envelope import unpack

found = {}
for path in map(Path, sys.argv[1:]):
    update = unpack(path.read_bytes(), None)
    for index, decoded in decode_frames(update.manifest, update.frames):
        values = decoded.dense()
        text = f"{update.manifest.specs[index]}{values.dtype}{values.shape}".encode()
        found[f"{path.stem}:{index}"] = hashlib.sha256(text + values.tobytes()).hexdigest()
loaded = [name for name in ("torch", "flwr", "ray", "grpc") if name in sys.modules]
print(json.dumps({"found": found, "loaded": loaded}))
"""


def model() -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(9)
    return {
        "conv": rng.standard_normal((16, 8, 3, 3)).astype(np.float32),
        "dense": rng.laplace(0, 0.02, (60, 200)).astype(np.float32),
        "half": rng.standard_normal((5, 7)).astype(np.float16),
        "double": rng.standard_normal(50),
        "bias": np.zeros(16, np.float32),
        "scalar": np.full((), 2.5, np.float32),
        "steps": np.array([1, -5], np.int64),
    }


def digests(manifest: Manifest, name: str, values: list[NDArray[Any]]) -> dict[str, str]:
    found = {}
    for index, (spec, array) in enumerate(zip(manifest.specs, values, strict=True)):
        text = f"{spec}{array.dtype}{array.shape}".encode()
        found[f"{name}:{index}"] = hashlib.sha256(text + array.tobytes()).hexdigest()
    return found


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], dict[str, str]]:
    """Updates of every preset in files, and the digests of what their sender says they hold."""
    folder = tmp_path_factory.mktemp("updates")
    arrays = model()
    manifest = Manifest.of(arrays)
    paths: list[Path] = []
    expected: dict[str, str] = {}
    for number, text in enumerate(CASES):
        plan = preset(text).plan(manifest)
        frames, decoded = encode_frames(manifest, plan, arrays, np.random.default_rng(number))
        update = Update(Kind.MODEL, 7, 1, 0, 1, manifest.digest, frames, manifest=manifest)
        path = folder / f"{number:02}.fpu"
        path.write_bytes(pack(update))
        paths.append(path)
        expected |= digests(manifest, path.stem, [np.asarray(value.dense()) for value in decoded])
    return paths, expected


@pytest.mark.parametrize(
    "settings",
    [
        {"NUMBA_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        # Another CPU, as far as the kernels' compiler is concerned.
        {"NUMBA_CPU_NAME": "generic", "LC_ALL": "C"},
    ],
    ids=["one thread", "plain processor"],
)
def test_another_process_decodes_the_same_bits(
    written: tuple[list[Path], dict[str, str]],
    settings: dict[str, str],
    tmp_path: Path,
) -> None:
    paths, expected = written
    done = subprocess.run(
        [sys.executable, "-c", DECODER, *map(str, paths)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONHASHSEED": "123", **settings},
        capture_output=True,
        text=True,
        check=True,
    )
    answer = json.loads(done.stdout)
    assert answer["found"] == expected
    assert answer["loaded"] == []


@pytest.mark.parametrize(
    ("statement", "forbidden"),
    [
        ("import flowerpress.compression as c; c.preset('stc')", "torch flwr numba grpc google"),
        ("import flowerpress.protos", "torch flwr numba numpy google"),
        ("from flowerpress.protos import pack, split_updates", "torch flwr numba"),
        ("from flowerpress.client.split import SplitLink", "torch flwr numba"),
    ],
)
def test_what_an_import_brings_along(statement: str, forbidden: str) -> None:
    code = f"import sys; {statement}; print([m for m in {forbidden.split()} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_of_protos_can_be_imported() -> None:
    import flowerpress.protos as protos

    for name in protos.__all__:
        assert getattr(protos, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'unpak'"):
        protos.unpak  # type: ignore[attr-defined]  # noqa: B018
