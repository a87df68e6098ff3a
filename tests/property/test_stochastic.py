"""Integers rounded at random: right on average, off by less than a scale, decoded like others."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from flowerpress.compression import CODECS, Context, EncodeError, TensorSpec, preset
from flowerpress.compression.codec import read_recipe, recipe
from flowerpress.compression.features import feature_codec

TEXTS = (
    "int8(stochastic=true)",
    "int8(scale=tensor,stochastic=true)",
    "intn(bits=4,stochastic=true)",
    "intn(bits=2,scale=tensor,stochastic=true)",
    "intn(bits=3,scale=block,block=16,stochastic=true)",
)


def there_and_back(text: str, x: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    spec = TensorSpec("w", x.shape)
    codec = preset(text).codec(spec)
    body = codec.encode(x, spec, Context(np.random.default_rng(seed)))
    values: NDArray[np.float32] = codec.decode(memoryview(body), spec).dense().reshape(x.shape)
    return values


def step(text: str, x: NDArray[np.float32]) -> NDArray[np.float64]:
    """The largest scale that a value may have got, per row."""
    bits = 8 if text.startswith("int8") else int(text[text.index("bits=") + 5])
    peak: NDArray[np.float32] = (
        np.abs(x).max(axis=1) if "scale" not in text else np.full(len(x), np.abs(x).max())
    )
    out: NDArray[np.float64] = peak.astype(np.float64) * (1 + 2.0**-7) / (2 ** (bits - 1) - 1)
    return out


@pytest.mark.parametrize("text", TEXTS)
def test_the_mean_is_right(text: str) -> None:
    x = np.random.default_rng(3).standard_normal((3, 40)).astype(np.float32)
    x[2] *= 100
    runs = 1500
    total = np.zeros(x.shape)
    for seed in range(runs):
        total += there_and_back(text, x, seed)
    # A draw errs with a variance of at most a quarter of the step's square.
    deviation = step(text, x)[:, None] / 2 / math.sqrt(runs)
    assert (np.abs(total / runs - x) / deviation).max() < 4.5


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(TEXTS), st.floats(-30, 30))
def test_errors_are_below_a_scale(seed: int, text: str, magnitude: float) -> None:
    x = np.random.default_rng(seed).standard_normal((4, 33)) * 10**magnitude
    single = x.astype(np.float32)
    off = np.abs(there_and_back(text, single, seed).astype(np.float64) - single)
    assert (off <= step(text, single)[:, None] * (1 + 1e-6)).all()


@pytest.mark.parametrize("text", TEXTS)
def test_only_the_encoder_knows(text: str) -> None:
    spec = TensorSpec("w", (4, 33))
    plain = preset(text.replace("stochastic=true", "stochastic=false")).codec(spec)
    codec = preset(text).codec(spec)
    assert recipe(codec) == recipe(plain)
    assert (codec.biased, plain.biased) == (False, True)
    assert "at random" in codec.describe()
    assert not read_recipe(memoryview(recipe(codec)), CODECS).describe().count("at random")


@pytest.mark.parametrize("text", TEXTS)
def test_a_generator_is_needed_and_settles_the_bytes(text: str) -> None:
    y = np.random.default_rng(0).standard_normal((5, 4, 7)).astype(np.float32)
    codec = feature_codec(text)
    with pytest.raises(EncodeError, match="no generator"):
        codec.encode(y)
    bodies = [codec.encode(y, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert bodies[0] == bodies[1] != bodies[2]


@pytest.mark.parametrize("text", TEXTS)
def test_zeros_stay_zeros(text: str) -> None:
    assert not there_and_back(text, np.zeros((4, 33), np.float32), 1).any()
