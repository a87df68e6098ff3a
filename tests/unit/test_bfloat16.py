"""bfloat16 tensors: rounding as torch rounds, two bytes on the wire, float32 in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from flowerpress.compression import (
    EncodeError,
    Manifest,
    ManifestError,
    NonFiniteError,
    TensorSpec,
    apply_frames,
    encode_frames,
    model_digest,
    preset,
)
from flowerpress.compression.bfloat16 import from_bits, rounded, to_bits

MANIFEST = Manifest(
    (TensorSpec("w", (30, 20), "bfloat16"), TensorSpec("b", (7,), "bfloat16"), TensorSpec("n", ()))
)


def model(seed: int = 0) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(seed)
    return {
        spec.name: spec.cast(rng.standard_normal(spec.shape).astype(np.float32))
        for spec in MANIFEST.specs
    }


def of_torch(values: NDArray[Any]) -> NDArray[np.uint16]:
    return torch.from_numpy(values.copy()).bfloat16().view(torch.uint16).numpy()


@settings(deadline=None, max_examples=200)
@given(arrays(np.uint32, st.integers(0, 20), elements=st.integers(0, 2**32 - 1)))
def test_rounds_as_torch_does(bits: NDArray[np.uint32]) -> None:
    values = bits.view(np.float32)
    mine, theirs = from_bits(to_bits(values)), from_bits(of_torch(values))
    np.testing.assert_array_equal(np.isnan(mine), np.isnan(theirs))
    finite = ~np.isnan(mine)
    np.testing.assert_array_equal(mine[finite].view(np.uint32), theirs[finite].view(np.uint32))


def test_every_pattern_survives() -> None:
    bits = np.arange(1 << 16, dtype=np.uint16)
    finite = np.isfinite(from_bits(bits))
    np.testing.assert_array_equal(to_bits(from_bits(bits))[finite], bits[finite])
    assert np.isnan(from_bits(to_bits(from_bits(bits[~finite])))).sum() == 2 * 127
    halfway = np.array([0x3F808000, 0x3F818000, 0x3F808001], np.uint32).view(np.float32)
    assert to_bits(halfway).tolist() == [0x3F80, 0x3F82, 0x3F81]
    assert np.isposinf(rounded(np.array([3.4e38, 1e39]))).all()


@pytest.mark.parametrize("text", ["none", "lossless", "lossless(coder=rans)"])
def test_two_bytes_an_element_and_every_bit(text: str) -> None:
    arrays = model()
    frames, _ = encode_frames(MANIFEST, preset(text).plan(MANIFEST), arrays, None)
    out = apply_frames(MANIFEST, {}, frames, change=False)
    for name, array in arrays.items():
        assert out[name].dtype == np.float32
        assert out[name].tobytes() == array.tobytes()
    if text == "none":
        assert [len(frame.body) for frame in frames] == [1200, 14, 4]
    assert MANIFEST.nbytes == 1218


@pytest.mark.parametrize("text", ["int8", "fp16", "stc(density=0.1)", "qsgd"])
def test_models_stay_on_the_grid(text: str) -> None:
    """Values and changes are rounded once, at the end, by server and client alike."""
    base, plan = model(), preset(text).plan(MANIFEST)
    change = {name: 0.01 * array for name, array in model(1).items()}
    frames, _ = encode_frames(MANIFEST, plan, change, np.random.default_rng(0))
    for out in (
        apply_frames(MANIFEST, base, frames, change=True),
        apply_frames(MANIFEST, {}, frames, change=False),
    ):
        for spec in MANIFEST.specs[:2]:
            assert spec.dtype == "bfloat16"
            np.testing.assert_array_equal(out[spec.name], rounded(out[spec.name]))
    assert model_digest(MANIFEST, base) == model_digest(
        MANIFEST, {k: v * 1 for k, v in base.items()}
    )
    assert model_digest(MANIFEST, base) != model_digest(MANIFEST, model(1))


def test_apps_may_widen_and_what_overflows_is_refused() -> None:
    own = MANIFEST.match({name: array.astype(np.float64) for name, array in model().items()})
    assert {array.dtype.name for array in own.values()} == {"float32"}
    with pytest.raises(ManifestError, match="missing"):
        MANIFEST.match({})
    large = model() | {"b": np.full(7, 3.4e38, np.float32)}
    with pytest.raises(EncodeError, match="a value does not fit bfloat16"):
        encode_frames(MANIFEST, preset("none").plan(MANIFEST), large, None)
    frames, _ = encode_frames(MANIFEST, preset("int8").plan(MANIFEST), large, None)
    with pytest.raises(NonFiniteError, match="overflows bfloat16"):
        apply_frames(MANIFEST, {}, frames, change=False)
