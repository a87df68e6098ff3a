"""EDEN and DRIVE: rotations to the bit, the promised error for every input, and no bias."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from flowerpress.compression import (
    ConfigError,
    Context,
    EncodeError,
    FormatError,
    NonFiniteError,
    Reader,
    TensorSpec,
    TruncatedError,
    WireError,
)
from flowerpress.compression.kernels.hadamard import rotate
from flowerpress.compression.pipeline import Pipeline
from flowerpress.compression.stages import Eden
from flowerpress.compression.stages.eden import NORMAL_LEVELS, pieces

QUICK = settings(deadline=None, max_examples=60)
UNBIASED = {1: 0.5708, 2: 0.1331, 3: 0.03578, 4: 0.009592}
SMALLEST = {1: 0.3634, 2: 0.1175, 3: 0.03455, 4: 0.009501}
N = 20_000


def inputs() -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(11)
    spikes = np.zeros(N)
    spikes[[3, 40, 41, 9_000, 19_999]] = [1, 0.5, -0.25, 7, 1e-3]
    out = {
        "normal": rng.standard_normal(N),
        "heavy tails": rng.standard_cauchy(N),
        "spikes": spikes,
        "constant": np.full(N, 0.3),
        "two halves": np.repeat([1e-6, 1e6], N // 2),
        "waves": np.sin(np.arange(N) / 3.0),
        "tiny": rng.laplace(size=N) * 1e-30,
        "large": rng.laplace(size=N) * 1e30,
    }
    return {name: x.astype(np.float32) for name, x in out.items()}


def code(x: NDArray[np.float32], stage: Eden, seed: int = 0) -> tuple[int, NDArray[np.float32]]:
    codec = Pipeline([stage], "pack")
    spec = TensorSpec("w", x.shape)
    body = codec.encode(x, spec, Context(np.random.default_rng(seed)))
    decoded = codec.decode(memoryview(body), spec).dense()
    assert decoded.dtype == np.float32
    return len(body), decoded


def nmse(got: NDArray[Any], x: NDArray[Any]) -> float:
    wide = x.astype(np.float64)
    return float(((got - wide) ** 2).sum() / (wide**2).sum())


# --- kernels ----------------------------------------------------------------------------------


def slow_rotation(
    x: NDArray[np.float32], chunk: int, first: int, seed: int, rounds: int
) -> NDArray[np.float32]:
    """One sum and one difference at a time, in float32."""

    def bit(i: int, t: int) -> int:
        whole = (1 << 64) - 1
        z = seed + (2 * (i // 64) + t + 1) * 0x9E3779B97F4A7C15 & whole
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & whole
        z = (z ^ z >> 27) * 0x94D049BB133111EB & whole
        return (z ^ z >> 31) >> (i % 64) & 1

    out = x.copy()
    for start in range(0, x.size, chunk):
        y = out[start : start + chunk]
        turns = range(abs(rounds)) if rounds > 0 else range(-rounds - 1, -1, -1)
        for t in turns:
            flips = np.array([bit(first + start + i, t) for i in range(chunk)])
            if rounds > 0:
                y[:] = np.where(flips, -y, y)
            h = 1
            while h < chunk:
                for i in range(chunk):
                    if not i & h:
                        y[i], y[i + h] = y[i] + y[i + h], y[i] - y[i + h]
                h *= 2
            if rounds < 0:
                y[:] = np.where(flips, -y, y)
    return out


@settings(deadline=None, max_examples=25)
@given(
    st.sampled_from([64, 128, 256, 512]),
    st.integers(1, 3),
    st.integers(0, 3),
    st.integers(0, 2**64 - 1),
    st.sampled_from([1, 2, -1, -2]),
)
def test_rotations_are_one_tree_of_additions(
    chunk: int, number: int, offset: int, seed: int, rounds: int
) -> None:
    x = np.random.default_rng(seed).standard_normal(chunk * number).astype(np.float32)
    expected = slow_rotation(x, chunk, 64 * offset, seed, rounds)
    got = x.copy()
    rotate(got, chunk, 64 * offset, np.uint64(seed), rounds)
    assert got.tobytes() == expected.tobytes()
    rotate(got, chunk, 64 * offset, np.uint64(seed), -rounds)
    np.testing.assert_allclose(got / chunk ** abs(rounds), x, atol=1e-5)


@QUICK
@given(st.integers(0, 100_000), st.integers(6, 14))
def test_chunks_cover_everything_and_little_more(count: int, log: int) -> None:
    at = 0
    for piece in pieces(count, log):
        assert piece.start == at
        assert 6 <= piece.log <= log
        at += piece.number << piece.log
    assert count <= at <= count + 63
    assert len(pieces(count, log)) <= log - 6 + 3


def test_levels_are_what_the_iteration_ends_in() -> None:
    def density(t: float) -> float:
        return math.exp(-t * t / 2) / math.sqrt(2 * math.pi)

    def beyond(t: float) -> float:
        return math.erfc(t / math.sqrt(2)) / 2

    for levels in NORMAL_LEVELS:
        n = len(levels)
        c = [3 * (i + 0.5) / n for i in range(n)]
        for _ in range(2000):
            edges = [0.0, *((a + b) / 2 for a, b in itertools.pairwise(c)), 40.0]
            c = [
                (density(a) - density(b)) / (beyond(a) - beyond(b))
                for a, b in itertools.pairwise(edges)
            ]
        np.testing.assert_allclose(levels, c, rtol=0, atol=1e-9)


# --- errors -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(inputs()))
def test_the_error_is_the_promised_one_whatever_the_input(name: str) -> None:
    x = inputs()[name]
    for scale, promised in (("unbiased", UNBIASED), ("smallest", SMALLEST)):
        for bits, expected in promised.items():
            size, got = code(x, Eden(bits, scale))
            assert nmse(got, x) == pytest.approx(expected, rel=0.05)
            assert size <= bits * (N + 63) / 8 + 8 + 4 * 10
    for share in (0.25, 0.5):
        size, got = code(x, Eden(share))
        assert nmse(got, x) == pytest.approx(math.pi / 2 / share - 1, rel=0.15)
        assert size <= share * (N + 63) / 8 + 8 + 4 * 10 + 8
        assert nmse(code(x, Eden(share, "smallest"))[1], x) < 1


def test_one_rotation_does_not_keep_the_promise_and_two_do() -> None:
    """Half of the rotated numbers of two equal spikes are zero, the others far out."""
    x = np.zeros(4096, np.float32)
    x[[17, 1000]] = 1
    once, twice = (nmse(code(x, Eden(1, rotations=r))[1], x) for r in (1, 2))
    assert once > 0.9
    assert twice == pytest.approx(UNBIASED[1], rel=0.05)


def average(x: NDArray[np.float32], stage: Eden, runs: int) -> tuple[Any, float]:
    """Mean of what is decoded, and the deviation of its elements that unbiased runs have."""
    total, squares = np.zeros(x.size), 0.0
    for seed in range(runs):
        got = code(x, stage, seed)[1].astype(np.float64)
        total += got
        squares += float(((got - x) ** 2).sum())
    return total / runs, math.sqrt(squares / runs / x.size / runs)


@pytest.mark.parametrize("bits", [0.5, 1, 3])
@pytest.mark.parametrize("kind", ["dense", "few"])
def test_what_is_decoded_is_right_on_average(bits: float, kind: str) -> None:
    rng = np.random.default_rng(5)
    x = rng.laplace(size=512).astype(np.float32)
    if kind == "few":
        x[4:] = 0
        x[:4] = [1, 0.5, -0.25, 0.125]
    mean, deviation = average(x, Eden(bits), 1200)
    # 512 scores of about one, if there is no bias.
    assert float((((mean - x) / deviation) ** 2).mean()) < 1.4


@pytest.mark.parametrize(
    "stage", [Eden(1, "smallest"), Eden(1, rotations=1)], ids=["smallest", "one rotation"]
)
def test_that_test_finds_a_bias(stage: Eden) -> None:
    x = np.zeros(512, np.float32)
    x[:4] = [1, 0.5, -0.25, 0.125]
    mean, deviation = average(x, stage, 1200)
    assert float((((mean - x) / deviation) ** 2).mean()) > 2


@QUICK
@given(st.sampled_from([0, 1, 2, 63, 64, 65, 127, 128, 1000, 8191, 8192, 8193, 20_000]), st.data())
def test_any_size_is_close_and_small(n: int, data: st.DataObject) -> None:
    bits = data.draw(st.sampled_from([0.1, 0.5, 1, 2, 4]))
    scale = data.draw(st.sampled_from(["unbiased", "smallest"]))
    x = np.random.default_rng(data.draw(st.integers(0, 99))).standard_normal(n).astype(np.float32)
    size, got = code(x, Eden(bits, scale))
    assert got.size == n
    assert np.isfinite(got).all()
    assert size <= (bits * (n + 64) + 8 * 8) / 8 + 8 + 4 * (n / 8192 + 10)
    if n > 500 and bits >= 1:
        assert nmse(got, x) < 0.75


def test_zeros_stay_zeros_and_the_rest_is_defined() -> None:
    zeros = np.zeros(300, np.float32)
    assert not code(zeros, Eden(2))[1].any()
    denormal = np.full(300, 1e-42, np.float32)
    assert nmse(code(denormal, Eden(4))[1], denormal) < 0.1
    spec = TensorSpec("w", (300,))
    with pytest.raises(EncodeError, match="'w': a chunk's norm does not fit a float32"):
        Pipeline([Eden()], "pack").encode(
            np.full(300, 3e38, np.float32), spec, Context(np.random.default_rng(0))
        )
    with pytest.raises(EncodeError, match="'w': eden rotates at random"):
        Pipeline([Eden()], "pack").encode(zeros, spec, Context())
    edge = np.zeros(300, np.float32)
    edge[7] = 2e38
    assert np.isfinite(code(edge, Eden(4))[1]).all()


# --- hostile ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scale", "error"), [(np.nan, NonFiniteError), (np.inf, NonFiniteError), (-1.0, FormatError)]
)
def test_scales_that_no_encoder_writes(scale: float, error: type[WireError]) -> None:
    body = bytes(8) + np.array([1, scale], "<f4").tobytes() + bytes(48)
    with pytest.raises(error, match="scales"):
        Pipeline([Eden()], "pack").decode(memoryview(body), TensorSpec("w", (150,)))


def test_bodies_cut_short() -> None:
    codec, spec = Pipeline([Eden()], "pack"), TensorSpec("w", (150,))
    x = np.ones(150, np.float32)
    body = codec.encode(x, spec, Context(np.random.default_rng(0)))
    for size in range(len(body)):
        with pytest.raises(TruncatedError):
            codec.decode(memoryview(body[:size]), spec)
    with pytest.raises(FormatError):
        codec.decode(memoryview(body + b"\0"), spec)


@pytest.mark.parametrize(
    "body",
    [
        *(b"\x10\x0d\x80\x20", b"\x00\x05\x80\x20", b"\x00\x15\x80\x20"),
        *(b"\x00\x0d\x00", b"\x00\x0d\x81\x20", b"\x01\x0d\x01"),
    ],
)
def test_parameters_that_no_encoder_writes(body: bytes) -> None:
    with pytest.raises(FormatError, match="eden"):
        Eden.read_params(Reader(body, "recipe"))


def test_parameters_out_of_range() -> None:
    for arguments, text in (
        ({"bits": 0}, "bits is 0"),
        ({"bits": 1.5}, "bits is 1.5"),
        ({"bits": 5}, "bits is 5"),
        ({"bits": math.nan}, "bits is nan"),
        ({"scale": "best"}, "scale is 'best'"),
        ({"rotations": 3}, "rotations is 3"),
        ({"chunk": 21}, "chunk is 21"),
    ):
        with pytest.raises(ConfigError, match=text):
            Eden(**arguments)
