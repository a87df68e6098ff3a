"""Updates that were written once and must decode forever: see tests/golden/updates."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from flowerpress.compression import CODECS, PRESETS, Manifest
from flowerpress.compression.coders.registry import REGISTRY
from flowerpress.compression.pipeline import Pipeline
from flowerpress.compression.spelling import parse_call
from flowerpress.compression.stages import STAGES
from flowerpress.protos.envelope import Kind, unpack

FOLDER = Path(__file__).parent / "updates"


def _script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("golden_updates", FOLDER / "write.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


WRITE = _script()
NAMES = list(WRITE.CASES)


def test_every_case_has_its_files() -> None:
    assert {path.stem for path in FOLDER.glob("*.fpu")} == set(NAMES)
    assert {path.stem for path in FOLDER.glob("*.npz")} == set(NAMES)


def test_every_preset_has_a_case() -> None:
    assert {parse_call(text)[0] for text in WRITE.CASES.values()} == set(PRESETS)


def test_every_tag_has_an_update() -> None:
    """Whoever adds a tag adds a case to CASES and runs write.py; nobody takes one away."""
    codecs: set[int] = set()
    stages: set[int] = set()
    coders: set[int] = set()
    for path in FOLDER.glob("*.fpu"):
        for frame in unpack(path.read_bytes(), Manifest.of(WRITE.model())).frames:
            codecs.add(frame.codec.tag)
            if isinstance(frame.codec, Pipeline):
                stages |= {stage.tag for stage in frame.codec.stages}
                coders.add(frame.codec.coder.tag)
    assert codecs == set(CODECS)
    assert stages == {stage.tag for stage in STAGES}
    assert coders == set(REGISTRY)


@pytest.mark.parametrize("name", NAMES)
def test_golden_update_decodes(name: str) -> None:
    decoded = WRITE.decode((FOLDER / f"{name}.fpu").read_bytes(), name)
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as expected:
        assert len(expected.files) == len(decoded)
        for i, (tensor, array) in enumerate(decoded.items()):
            want = expected[f"{i:02}"]
            assert array.dtype == want.dtype, tensor
            assert array.shape == want.shape, tensor
            assert array.tobytes() == want.tobytes(), tensor


@pytest.mark.parametrize("name", [name for name in NAMES if name not in WRITE.NOT_OURS])
def test_golden_update_is_still_what_we_write(name: str) -> None:
    # An encoder may learn to choose better: then list its case in NOT_OURS, and add a new one.
    assert WRITE.encode(name) == (FOLDER / f"{name}.fpu").read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_golden_header(name: str) -> None:
    manifest = Manifest.of(WRITE.model())
    # Those that bring a manifest can be read without one.
    own = None if NAMES.index(name) % 2 == 0 else manifest
    update = unpack((FOLDER / f"{name}.fpu").read_bytes(), own)
    number = NAMES.index(name)
    assert update.run == 0x0123456789ABCDEF
    assert (update.round, update.sequence) == (number + 1, 1000 + number)
    assert update.manifest_digest == manifest.digest
    if own is None:
        assert (update.kind, update.client) == (Kind.MODEL, 0)
        assert (update.base, update.result) == (b"", bytes(range(16, 32)))
        assert update.manifest == manifest
    else:
        assert (update.kind, update.client) == (Kind.DELTA, 0xFEDCBA9876543210)
        assert (update.base, update.result) == (bytes(range(16)), b"")
        assert update.manifest is None


def test_manifest_digest_is_frozen() -> None:
    assert Manifest.of(WRITE.model()).digest.hex() == "b782f12311d1a202"
