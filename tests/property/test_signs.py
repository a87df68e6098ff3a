"""Signs and little else: EF-signSGD, STC, ComPEFT, SparseLoCo, and what they are confused with."""

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
    EncodeError,
    Manifest,
    Sparse,
    TensorSpec,
    UnknownNameError,
    compensate,
    encode_frames,
    preset,
    residual,
)
from flowerpress.compression.entropy import subset_bits
from flowerpress.compression.moments import deviation, rms, squares

QUICK = settings(deadline=None, max_examples=40)
Arrays = dict[str, NDArray[np.float32]]


def update(seed: int = 0, n: int = 50_000) -> Arrays:
    rng = np.random.default_rng(seed)
    return {
        "w": (rng.laplace(0.01, 0.1, n)).astype(np.float32).reshape(-1, 100),
        "b": rng.standard_normal(33).astype(np.float32),
        "s": np.full((), 0.4, np.float32),
    }


def sent(text: str, arrays: Arrays) -> tuple[Arrays, int]:
    manifest = Manifest.of(arrays)
    frames, values = encode_frames(manifest, preset(text).plan(manifest), arrays, None)
    out = {
        spec.name: np.asarray(v.dense(), np.float32).reshape(spec.shape)
        for spec, v in zip(manifest.specs, values, strict=True)
    }
    return out, sum(len(frame.body) for frame in frames)


def together(arrays: Arrays) -> NDArray[np.float64]:
    return np.concatenate([x.reshape(-1) for x in arrays.values()]).astype(np.float64)


# --- EF-signSGD -------------------------------------------------------------------------------


def test_efsign_is_the_sign_times_the_mean_magnitude_of_each_tensor() -> None:
    arrays = update()
    got, size = sent("efsign", arrays)
    for name, x in arrays.items():
        scale = np.abs(x.astype(np.float64)).mean()
        np.testing.assert_allclose(got[name], np.where(x < 0, -scale, scale), rtol=1e-6)
    total = sum(x.size for x in arrays.values())
    assert size == sum(4 + math.ceil(x.size / 8) for x in arrays.values()) < total / 8 + 20


def test_efsign_contracts_by_as_much_as_its_paper_says() -> None:
    # Karimireddy et al. 2019, lemma 8: |C(x) - x|^2 <= (1 - |x|_1^2 / (d |x|_2^2)) |x|^2.
    x = update()["w"].astype(np.float64)
    got = sent("efsign", {"w": x.astype(np.float32)})[0]["w"]
    share = np.abs(x).sum() ** 2 / (x.size * (x**2).sum())
    error = ((got - x) ** 2).sum() / (x**2).sum()
    assert error == pytest.approx(1 - share, rel=1e-4)


@pytest.mark.parametrize("text", ["efsign", "stc(density=0.1)", "sparseloco(k=4, chunk=64)"])
def test_error_feedback_makes_up_for_the_bias(text: str) -> None:
    manifest = Manifest.of(update())
    plan = preset(text).plan(manifest)
    gradient = update(3, 1000)
    manifest = Manifest.of(gradient)
    plan = preset(text).plan(manifest)
    arrived = {name: np.zeros(x.shape) for name, x in gradient.items()}
    rest: dict[str, NDArray[np.float32]] = {}
    rounds = 60
    for _ in range(rounds):
        meant = compensate(manifest, gradient, rest)
        _, values = encode_frames(manifest, plan, meant, None)
        rest = residual(manifest, plan, meant, values)
        for spec, value in zip(manifest.specs, values, strict=True):
            value.add_to(arrived[spec.name].reshape(-1))
    mean = together({n: (v / rounds).astype(np.float32) for n, v in arrived.items()})
    x = together(gradient)
    assert ((mean - x) ** 2).sum() < 0.1 * (x**2).sum()
    once = together(sent(text, gradient)[0])
    assert ((mean - x) ** 2).sum() < 0.25 * ((once - x) ** 2).sum()


# --- STC --------------------------------------------------------------------------------------


def test_the_magnitude_of_stc_is_the_mean_over_kept_entries_only() -> None:
    x = np.zeros(10_000, np.float32)
    x[::100] = np.tile([3.0, -5.0], 50)
    got = sent("stc(density=0.01)", {"w": x})[0]["w"]
    # Averaged over zeros too it would be 0.04, a hundred times too small.
    np.testing.assert_array_equal(got[::100], np.tile(np.array([4, -4], np.float32), 50))
    assert np.count_nonzero(got) == 100
    better = ((got - x) ** 2).sum()
    for factor in (0.01, 0.5, 0.9, 1.1):
        assert better < ((factor * got - x) ** 2).sum()


# --- ComPEFT ----------------------------------------------------------------------------------


@QUICK
@given(st.sampled_from([0.01, 0.05, 0.3]), st.sampled_from([0.5, 1.0, 4.0]), st.integers(0, 99))
def test_compeft_is_one_task_vector(density: float, alpha: float, seed: int) -> None:
    arrays = update(seed, 2000)
    got = together(sent(f"compeft(density={density}, alpha={alpha})", arrays)[0])
    x = together(arrays)
    k = round(density * x.size)
    order = np.lexsort((np.arange(x.size), -np.abs(x)))[:k]
    expected = np.zeros(x.size)
    # The deviation of all of them, with its mean subtracted, and not of those that are kept.
    expected[order] = np.sign(x[order]) * alpha * math.sqrt(((x - x.mean()) ** 2).mean())
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_compeft_of_each_tensor_for_itself() -> None:
    arrays = update()
    got, _ = sent("compeft(scope=tensor, density=0.1, alpha=2)", arrays)
    for name in "wb":
        kept = got[name][got[name] != 0]
        assert kept.size == round(0.1 * arrays[name].size)
        np.testing.assert_allclose(np.abs(kept), 2 * arrays[name].std(dtype=np.float64), rtol=1e-6)
    assert got["s"] == 0  # a single number has no deviation


@pytest.mark.parametrize("density", [0.01, 0.05, 0.2])
def test_compeft_takes_the_bits_of_its_entropy(density: float) -> None:
    x = np.random.default_rng(6).standard_normal(400_000).astype(np.float32)
    k = density
    entropy = -k * math.log2(k) - (1 - k) * math.log2(1 - k) + k
    _, size = sent(f"compeft(density={k})", {"w": x})
    assert 0.999 * entropy < 8 * size / x.size < 1.005 * entropy
    # The Golomb code of the paper: its parameter, the rate that follows, and ours.
    phi = (1 + math.sqrt(5)) / 2
    b = 1 + math.floor(math.log2(math.log(phi - 1) / math.log(1 - k)))
    rate = k * (b + 1 / (1 - (1 - k) ** (2**b))) + k
    _, golomb = sent(f"compeft(density={k}, positions=golomb)", {"w": x})
    assert 8 * golomb / x.size < 1.003 * rate
    assert size <= golomb
    if density == 0.05:
        assert rate == pytest.approx(0.339, abs=5e-4)
        assert entropy == pytest.approx(0.336, abs=5e-4)


def test_compeft_refuses() -> None:
    for alpha in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ConfigError, match="alpha is"):
            preset(f"compeft(alpha={alpha})")
    for text in ("compeft(scope=layer)", "topk(scope=layer)"):
        with pytest.raises(UnknownNameError, match=r"unknown scope 'layer'.*global, tensor"):
            preset(text)
    x = np.tile(np.array([3e38, -3e38], np.float32), 10)
    for scope in ("global", "tensor"):
        with pytest.raises(EncodeError, match="'w': 9 deviations do not fit a float32"):
            sent(f"compeft(alpha=9, scope={scope})", {"w": x})


@QUICK
@given(st.lists(st.integers(0, 70_000), min_size=1, max_size=3), st.integers(0, 2**32 - 1))
def test_moments(sizes: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    parts = [(rng.standard_normal(n) + 3).astype(np.float32) for n in sizes]
    whole = np.concatenate(parts).astype(np.float64)
    assert deviation(parts) == pytest.approx(whole.std() if whole.size else 0, rel=1e-12)
    assert squares(parts[0], 2.0) == pytest.approx(((parts[0] - np.float64(2)) ** 2).sum(), 1e-12)
    mean_square = (parts[0].astype(np.float64) ** 2).mean() if parts[0].size else 0.0
    assert rms(parts[0]) == pytest.approx(math.sqrt(mean_square), rel=1e-12)


# --- SparseLoCo -------------------------------------------------------------------------------


def test_sparseloco_keeps_the_top_of_each_chunk() -> None:
    x = np.random.default_rng(8).standard_normal(3 * 4096 + 1000).astype(np.float32)
    x[:4096] *= 100  # does not crowd out the others
    spec = TensorSpec("w", x.shape)
    codec = preset("sparseloco").codec(spec)
    got = codec.decode(memoryview(codec.encode(x, spec, Context())), spec)
    assert isinstance(got, Sparse)
    counts = np.bincount(got.positions // 4096, minlength=4)
    assert counts.tolist() == [64, 64, 64, 16]
    for chunk in range(4):
        part = x[4096 * chunk : 4096 * (chunk + 1)]
        kept = got.positions[got.positions // 4096 == chunk] - 4096 * chunk
        rest = np.delete(np.abs(part), kept)
        assert np.abs(part[kept]).min() >= rest.max()
    assert len(set(got.values.tolist())) == 4


def test_sparseloco_takes_fewer_than_twelve_bits_for_an_index() -> None:
    x = np.random.default_rng(9).standard_normal(1 << 20).astype(np.float32)
    kept = x.size // 64
    _, size = sent("sparseloco", {"w": x})
    ideal = subset_bits(64, 4096) / 64
    assert ideal == pytest.approx(7.36, abs=0.01)
    assert 8 * size / kept - 2 < 1.02 * ideal
    assert 32 * x.size / (8 * size) > 1.45 * 32 * 64 / 14  # 14 bits each would be 146 times


def test_sparseloco_levels_are_the_best_four_for_what_is_kept() -> None:
    x = np.random.default_rng(10).standard_normal(64 * 1024).astype(np.float32)
    got = sent("sparseloco", {"w": x})[0]["w"]
    kept = got != 0
    line = x[kept].astype(np.float64)
    levels = np.unique(got[kept]).astype(np.float64)
    nearest = levels[np.abs(line[:, None] - levels).argmin(axis=1)]
    np.testing.assert_array_equal(got[kept], nearest)
    for level in levels:
        assert line[nearest == level].mean() == pytest.approx(level, rel=1e-3)


def test_sparseloco_refuses() -> None:
    for text, message in (
        ("sparseloco(k=0)", "k is 0"),
        ("sparseloco(k=65, chunk=64)", "k is 65"),
        ("sparseloco(chunk=0)", "chunk is 0"),
        ("sparseloco(bits=9)", "bits is 9"),
        ("sparseloco(bits=0)", "bits is 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            preset(text)
    stages = preset("sparseloco(bits=1)").codec(TensorSpec("w", (9,))).describe()
    assert stages == "top 64 of each 4096 > 2-means > rans"
