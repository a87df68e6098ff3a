"""Golden files decode to the same bytes and symbols in other processes, with other threads.

Kernels that add up in another order with more threads, or with a processor's own instructions,
would pass every test on the machine on which the golden files were written.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

HERE = Path(__file__).parent
UPDATES = sorted((HERE / "updates").glob("*.fpu"))
MODELS = sorted((HERE / "checkpoints").glob("*.fpress"))
BODIES = sorted((HERE / "rd").glob("*.json"))
FEATURES = sorted((HERE / "features").glob("*.json"))
PROMISED = ("digest", "symbols_sha256", "values_sha256")

# Several decode at once, too: a server decodes its clients' updates in threads.
DECODER = """
import importlib.util, json, sys
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

def script(path):
    spec = importlib.util.spec_from_file_location(path.parent.name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

here = Path(sys.argv[1])
updates, models = script(here / "updates" / "write.py"), script(here / "checkpoints" / "write.py")
bodies, features = script(here / "rd" / "write.py"), script(here / "features" / "write.py")

def decoded(path):
    blob = path.read_bytes()
    if path.suffix == ".fpress":
        return sha256(models.decode(blob)).hexdigest()
    if path.parent.name == "features":
        return features.decoded(json.loads(blob))
    if path.suffix == ".json":
        return bodies.digest(bodies.decode(json.loads(blob), path.stem))
    arrays = updates.decode(blob, path.stem).values()
    return sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()

paths = [Path(name) for name in sys.argv[2:]]
with ThreadPoolExecutor(4) as pool:
    names = [f"{path.parent.name}/{path.name}" for path in paths]
    print(json.dumps(dict(zip(names, pool.map(decoded, paths)))))
"""

THREADS = ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
SETTINGS = {
    "one thread": dict.fromkeys(THREADS, "1"),
    "three threads": dict.fromkeys(THREADS, "3"),
    "a plain processor": {"NUMBA_CPU_NAME": "generic", "OPENBLAS_CORETYPE": "Prescott"},
}


def name_of(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def expected() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path in UPDATES:
        with np.load(path.with_suffix(".npz"), allow_pickle=False) as values:
            data = b"".join(values[name].tobytes() for name in sorted(values.files))
        found[name_of(path)] = sha256(data).hexdigest()
    for path in MODELS:
        found[name_of(path)] = sha256(path.with_suffix(".safetensors").read_bytes()).hexdigest()
    for path in BODIES:
        found[name_of(path)] = json.loads(path.read_text())["sha256"]
    for path in FEATURES:
        case = json.loads(path.read_text())
        found[name_of(path)] = {name: case[name] for name in PROMISED}
    return found


@pytest.mark.parametrize("case", SETTINGS)
def test_another_process_decodes_the_same_bytes(case: str, tmp_path: Path) -> None:
    paths = [*UPDATES, *MODELS, *BODIES, *FEATURES]
    done = subprocess.run(
        [sys.executable, "-c", DECODER, str(HERE), *map(str, paths)],
        cwd=tmp_path,
        env={**os.environ, **SETTINGS[case]},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == expected()
