"""The best k-means: against every partition, in bins, and as codebooks of groups."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from flowerpress.compression import (
    ConfigError,
    Context,
    FormatError,
    NonFiniteError,
    Reader,
    TensorSpec,
    TruncatedError,
    WireError,
)
from flowerpress.compression.clusters import lloyd, nearest_centroid, optimal
from flowerpress.compression.coders.background import Background
from flowerpress.compression.pipeline import Pipeline
from flowerpress.compression.stages import Codebook, GroupCodebook

QUICK = settings(deadline=None, max_examples=60)
KINDS = ("normal", "heavy", "ties", "offset", "constant", "tiny", "huge")


def values(kind: str, n: int, seed: int) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    x = {
        "normal": rng.standard_normal(n),
        "heavy": rng.standard_cauchy(n),
        "ties": np.rint(2 * rng.standard_normal(n)),
        "offset": 1e4 + rng.standard_normal(n),
        "constant": np.full(n, -0.375),
        "tiny": 1e-40 * rng.standard_normal(n),
        "huge": 3e38 * np.tanh(rng.standard_normal(n)),
    }[kind]
    return x.astype(np.float32)


def cost(x: NDArray[np.float32], centroids: NDArray[np.float32]) -> float:
    wide = x.astype(np.float64)
    chosen = centroids.astype(np.float64)[nearest_centroid(x, centroids)]
    return float(((wide - chosen) ** 2).sum())


def least(x: NDArray[np.float32], clusters: int) -> float:
    """The least squared error of ``clusters`` intervals, trying every border."""
    v = np.sort(x.astype(np.float64))
    best = [0.0] + [math.inf] * v.size
    for _ in range(clusters):
        now = [0.0]
        for j in range(1, v.size + 1):
            parts = ((best[i], v[i:j]) for i in range(j))
            now.append(min(b + float(((p - p.mean()) ** 2).sum()) for b, p in parts))
        best = now
    return best[-1]


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(KINDS), st.integers(1, 18), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_nothing_is_better(kind: str, n: int, clusters: int, seed: int) -> None:
    x = values(kind, n, seed)
    centroids = optimal(x, clusters)
    assert 1 <= centroids.size <= clusters
    assert (centroids[1:] > centroids[:-1]).all()
    expected = least(x, clusters)
    largest = float(np.abs(x).max())
    # Centroids are float32: each value may be off by half a unit in the last place more.
    slack = 1e-6 * math.sqrt(expected * n) * largest + n * (1e-7 * largest) ** 2 + n * 2.0**-298
    assert cost(x, centroids) <= expected * (1 + 1e-6) + slack


@pytest.mark.parametrize("kind", ["normal", "heavy", "ties"])
@pytest.mark.parametrize("clusters", [2, 3, 16, 100, 256])
def test_bins_cost_next_to_nothing(kind: str, clusters: int) -> None:
    x = values(kind, 30_000, 1)
    best = cost(x, optimal(x, clusters, bins=x.size))
    assert cost(x, optimal(x, clusters)) <= best * 1.001
    assert best <= cost(x, lloyd(x, clusters))
    # Beyond 65,536 values they are counted in bins before anything else.
    counted = optimal(np.tile(x, 3), clusters)
    assert cost(x, counted) <= best * 1.001 + 1e-12


def test_few_bins_stay_within_the_bound() -> None:
    x = values("normal", 5000, 3)
    bins = 64
    edges = np.quantile(x, [0, 1])
    exact, rough = cost(x, optimal(x, 8, bins=x.size)), cost(x, optimal(x, 8, bins=bins))
    # No bin is wider, or fuller, than all of it: a crude form of the documented bound.
    assert exact <= rough <= exact + 2 * float(edges[1] - edges[0]) ** 2 * x.size / bins
    assert rough <= 1.05 * exact


def test_a_signed_histogram_is_in_order() -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(m, 1e-3, 20_000) for m in (-3, -1e-3, 0.5, 7)]).astype("f4")
    np.testing.assert_allclose(optimal(x, 4), [-3, -1e-3, 0.5, 7], atol=1e-4)


@QUICK
@given(st.sampled_from(KINDS), st.sampled_from([1, 2, 3, 15, 16, 17, 255, 256]), st.integers(0, 99))
def test_the_nearest_of_all(kind: str, clusters: int, seed: int) -> None:
    x = values(kind, 700, seed)
    centroids = np.unique(values(kind, clusters, seed + 1))
    wide = centroids.astype(np.float64)
    middles = (wide[1:] + wide[:-1]) / 2
    np.testing.assert_array_equal(nearest_centroid(x, centroids), np.searchsorted(middles, x))


@QUICK
@given(
    st.sampled_from(KINDS),
    st.sampled_from([0, 1, 15, 16, 17, 100, 333]),
    st.sampled_from([1, 2, 5, 256]),
    st.sampled_from([16, 50, 2**31 - 1]),
)
def test_each_group_has_its_own_best(kind: str, n: int, clusters: int, group: int) -> None:
    x = values(kind, n, 4)
    codec = Pipeline([GroupCodebook(clusters, group)], "pack")
    spec = TensorSpec("w", (n,))
    got = codec.decode(memoryview(codec.encode(x, spec, Context())), spec).dense()
    assert got.dtype == np.float32
    assert got.size == n
    for start in range(0, n, group):
        part = x[start : start + group]
        centroids = optimal(part, clusters, bins=max(256, 16 * clusters))
        expected = centroids[nearest_centroid(part, centroids)]
        np.testing.assert_array_equal(got[start : start + group], expected)


def test_a_codebook_of_the_best() -> None:
    x = values("heavy", 2000, 5)
    spec = TensorSpec("w", x.shape)
    codec = Pipeline([Codebook(7, "optimal")], "rans")
    got = codec.decode(memoryview(codec.encode(x, spec, Context())), spec).dense()
    assert float(((got.astype(np.float64) - x) ** 2).sum()) == cost(x, optimal(x, 7))


@pytest.mark.parametrize(
    ("table", "error"),
    [
        ([0, 2, 1], FormatError),
        ([1, 1, 2], FormatError),
        ([0, np.nan, 1], NonFiniteError),
        ([0, 1, np.inf], NonFiniteError),
    ],
)
def test_tables_that_no_encoder_writes(table: list[float], error: type[WireError]) -> None:
    good, bad = np.array([0, 1, 1], "<f4").tobytes(), np.array(table, "<f4").tobytes()
    codec, spec = Pipeline([GroupCodebook(3, 16)], "raw"), TensorSpec("w", (20,))
    assert codec.decode(memoryview(good + good + bytes(20)), spec).dense().size == 20
    with pytest.raises(error, match="centroids"):
        codec.decode(memoryview(good + bad + bytes(20)), spec)
    with pytest.raises(TruncatedError):
        codec.decode(memoryview(good + good[:-1]), spec)
    with pytest.raises(FormatError, match="symbol 3 of 3"):
        codec.decode(memoryview(good + good + bytes([3]) * 20), spec)


def test_parameters_out_of_range() -> None:
    for clusters, group, text in (
        (0, 64, "clusters is 0"),
        (257, 64, "clusters"),
        (4, 15, "group"),
    ):
        with pytest.raises(ConfigError, match=text):
            GroupCodebook(clusters, group)
    with pytest.raises(ConfigError, match="method is 'best'; it must be one of lloyd, optimal"):
        Codebook(3, "best")
    for body in (b"\x03\x0f", b"\x03\x80\x80\x80\x80\x08"):
        with pytest.raises(FormatError, match="codebooks"):
            GroupCodebook.read_params(Reader(body, "recipe"))


@pytest.mark.parametrize("density", [0.0, 0.02, 0.5, 1.0])
def test_each_of_three_encodings_and_the_smallest(density: float) -> None:
    rng = np.random.default_rng(6)
    symbols = np.where(rng.random(3000) < density, rng.integers(0, 5, 3000), 2).astype(np.uint8)
    bodies = {name: Background(name).encode(symbols, 5) for name in ("huffman", "address", "gap")}
    assert [body[0] for body in bodies.values()] == [0, 1, 2]
    for body in bodies.values():
        np.testing.assert_array_equal(Background().decode(body, 3000, 5), symbols)
    assert len(Background().encode(symbols, 5)) == min(map(len, bodies.values()))
    with pytest.raises(
        ConfigError, match="encoding is 'gaps'; it must be one of smallest, huffman"
    ):
        Background("gaps")
