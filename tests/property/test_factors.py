"""PowerSGD and low-rank residuals: products to the bit, factors near the best, hostile bodies."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from flowerpress.compression import (
    CODECS,
    Codec,
    ConfigError,
    Context,
    EncodeError,
    FormatError,
    Manifest,
    NonFiniteError,
    TensorSpec,
    TruncatedError,
    WireError,
    Writer,
    compensate,
    encode_frames,
    preset,
    read_recipe,
    recipe,
    residual,
    warmth,
)
from flowerpress.compression.factors import FactorFormat, matrix_shape
from flowerpress.compression.kernels.product import add_product
from flowerpress.compression.lowrank import LowRank
from flowerpress.compression.pipeline import Pipeline
from flowerpress.compression.powersgd import PowerSgd
from flowerpress.compression.stages import Codebook, Exact, Ternary, TopK

QUICK = settings(deadline=None, max_examples=60)
SHAPES = [(30, 50), (50, 30), (1, 9), (9, 1), (8, 4, 3, 3), (3, 0), (0, 3), (1, 1), (600, 4, 5)]


def power(rank: int = 4, number: str = "float32", code: str = "raw") -> PowerSgd:
    return PowerSgd(FactorFormat.named(rank, number, code))


def low(rank: int = 2, clusters: int = 4, rounds: int = 1, number: str = "fp16") -> LowRank:
    base = Pipeline([Codebook(clusters, "optimal")], "rans")
    return LowRank(base, FactorFormat.named(rank, number, "rans"), rounds)


def sloping(shape: tuple[int, int], seed: int = 0, decay: float = 0.5) -> NDArray[np.float32]:
    """A matrix whose singular values fall by ``decay`` each."""
    rng = np.random.default_rng(seed)
    u, _ = np.linalg.qr(rng.standard_normal((shape[0], min(shape))))
    v, _ = np.linalg.qr(rng.standard_normal((shape[1], min(shape))))
    return np.asarray((u * decay ** np.arange(min(shape))) @ v.T, np.float32)


def there_and_back(
    codec: Codec, x: NDArray[Any], warm: NDArray[np.float32] | None = None, dtype: str = "float32"
) -> tuple[bytes, NDArray[np.float32]]:
    spec = TensorSpec("w", x.shape, dtype)
    body = codec.encode(x, spec, Context(np.random.default_rng(0), warm=warm))
    got = codec.decode(memoryview(body), spec).dense()
    assert got.dtype == np.float32
    return body, got.reshape(x.shape)


def error(got: NDArray[Any], x: NDArray[Any]) -> float:
    wide = x.astype(np.float64)
    return float(((got - wide) ** 2).sum() / max(float((wide**2).sum()), 1e-300))


# --- the product ------------------------------------------------------------------------------


@QUICK
@given(
    st.integers(0, 9), st.integers(0, 5), st.sampled_from([0, 1, 7, 2047, 2048, 4100]), st.data()
)
def test_products_are_one_chain_of_sums(
    rank: int, rows: int, columns: int, data: st.DataObject
) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    left = rng.standard_normal((rows, rank)).astype(np.float32)
    right = (rng.standard_normal((rank, columns)) * 10.0 ** rng.integers(-3, 3)).astype(np.float32)
    out = rng.standard_normal((rows, columns)).astype(np.float32)
    expected = out.copy()
    for k in range(rank):
        expected += left[:, k : k + 1] * right[k]
    add_product(left, right, out)
    assert out.tobytes() == expected.tobytes()


# --- powersgd ---------------------------------------------------------------------------------


@pytest.mark.parametrize("number", ["float32", "fp16"])
@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
def test_what_has_a_low_rank_arrives_whole(number: str, scale: float) -> None:
    rng = np.random.default_rng(1)
    x = (rng.standard_normal((40, 3)) @ rng.standard_normal((3, 70)) * scale).astype(np.float32)
    _, got = there_and_back(power(3, number), x)
    assert error(got, x) < (1e-11 if number == "float32" else 1e-6)


def test_a_convolution_is_output_channels_by_the_rest() -> None:
    assert matrix_shape(TensorSpec("w", (8, 4, 3, 5))) == (8, 60)
    x = sloping((8, 36)).reshape(8, 4, 3, 3)
    body, got = there_and_back(power(2), x)
    assert len(body) == 4 * 2 * (8 + 36)
    assert error(got, x) < 0.1


def test_warm_starts_end_at_the_best_factors() -> None:
    codec, x = power(3), sloping((60, 90), decay=0.8)
    spec = TensorSpec("w", x.shape)
    singular = np.linalg.svd(x.astype(np.float64), compute_uv=False)
    best = float((singular[3:] ** 2).sum() / (singular**2).sum())
    warm, errors = None, []
    for _ in range(12):
        body, got = there_and_back(codec, x, warm)
        errors.append(error(got, x))
        warm = codec.warmth(memoryview(body), spec)
        assert warm is not None
        assert warm.shape == (3, 90)
        assert warm.dtype == np.float32
    assert all(b <= a * (1 + 1e-6) for a, b in itertools.pairwise(errors))
    assert errors[0] > 1.05 * best
    assert errors[-1] <= 1.001 * best


def test_a_warm_start_of_another_shape_or_of_nothing_is_none() -> None:
    codec, x = power(2), sloping((20, 30))
    _, cold = there_and_back(codec, x)
    for warm in (
        np.ones((3, 30), np.float32),
        np.full((2, 30), np.nan, np.float32),
        np.zeros((2, 30), np.float32),
    ):
        assert error(there_and_back(codec, x, warm)[1], x) <= 1.5 * error(cold, x)


def test_after_zeros_a_warm_start_still_works() -> None:
    codec, spec = power(2, "fp16"), TensorSpec("w", (20, 30))
    body, got = there_and_back(codec, np.zeros((20, 30), np.float32))
    assert not got.any()
    x = sloping((20, 30))
    assert error(there_and_back(codec, x, codec.warmth(memoryview(body), spec))[1], x) < 0.2


@pytest.mark.parametrize("text", ["powersgd(rank=4)", "lowrank(rank=4, bits=1)"])
def test_rounds_with_error_feedback_bring_everything_across(text: str) -> None:
    x = {"w": sloping((40, 60), decay=0.9)}
    manifest = Manifest.of(x)
    plan = preset(text).plan(manifest)
    arrived = np.zeros(x["w"].size)
    rest: dict[str, NDArray[np.float32]] = {}
    warm: dict[str, NDArray[np.float32]] = {}
    for turn in range(25):
        tensors = compensate(manifest, {"w": x["w"] * (turn == 0)}, rest)
        frames, decoded = encode_frames(
            manifest, plan, tensors, np.random.default_rng(turn), warm=warm
        )
        rest, warm = residual(manifest, plan, tensors, decoded), warmth(manifest, frames)
        decoded[0].add_to(arrived)
    assert error(arrived.reshape(40, 60), x["w"]) < 1e-3


@QUICK
@given(
    st.sampled_from(SHAPES),
    st.sampled_from(["float32", "fp16"]),
    st.sampled_from(["raw", "rans", "zstd"]),
    st.sampled_from([1, 4, 256]),
    st.booleans(),
    st.sampled_from(["float16", "float32", "float64"]),
)
def test_shapes_formats_and_coders(
    shape: tuple[int, ...], number: str, code: str, rank: int, base: bool, dtype: str
) -> None:
    codec: Codec = power(rank, number, code)
    if base:
        form = FactorFormat.named(rank, number, code)
        codec = LowRank(Pipeline([Codebook(2, "optimal")], "pack"), form, 1)
    x = np.random.default_rng(3).standard_normal(shape).astype(dtype)
    body, got = there_and_back(codec, x, dtype=dtype)
    again = read_recipe(memoryview(recipe(codec)), CODECS)
    assert recipe(again) == recipe(codec)
    assert again.describe().endswith(f"rank {rank} in {number} > {code}")
    assert (again.biased, again.lossless) == (True, False)
    spec = TensorSpec("w", shape, dtype)
    np.testing.assert_array_equal(again.decode(memoryview(body), spec).dense().reshape(shape), got)
    if rank >= min(matrix_shape(spec)):
        assert error(got, x) < 1e-6


# --- low rank ---------------------------------------------------------------------------------


def test_factors_take_up_what_a_quantizer_loses() -> None:
    x = sloping((64, 100), decay=0.7) + 0.01 * np.random.default_rng(2).standard_normal((64, 100))
    x = x.astype(np.float32)
    spec = TensorSpec("w", x.shape)
    base = Pipeline([Codebook(4, "optimal")], "rans")
    alone = error(there_and_back(base, x)[1], x)
    errors = [error(there_and_back(low(4, 4, rounds), x)[1], x) for rounds in (0, 1, 3)]
    assert errors[0] < 0.8 * alone
    assert errors[1] < 0.5 * errors[0]
    assert errors[2] <= 1.02 * errors[1]
    # With no rounds, the quantizer's body is the one it writes alone.
    body, _ = there_and_back(low(4, 4, 0), x)
    own = base.encode(x, spec, Context())
    assert own in body


def test_quantizers_that_select_or_lose_nothing() -> None:
    x = sloping((20, 30))
    sparse = LowRank(
        Pipeline([TopK(0.1), Ternary()], "pack"), FactorFormat.named(2, "fp16", "rans"), 1
    )
    assert error(there_and_back(sparse, x)[1], x) < error(there_and_back(power(2), x)[1], x)
    with pytest.raises(ConfigError, match="low rank cannot follow a lossless codec"):
        LowRank(Pipeline([Exact()], "raw"), FactorFormat.named(2, "fp16", "rans"))


# --- what cannot be encoded, what must not be decoded -------------------------------------------


@pytest.mark.parametrize("codec", [power(), low()], ids=["powersgd", "lowrank"])
def test_tensors_without_factors(codec: Codec) -> None:
    with pytest.raises(EncodeError, match="'w': has fewer than two axes"):
        codec.encode(np.ones(5, np.float32), TensorSpec("w", (5,)), Context())
    with pytest.raises(EncodeError, match="'w': int64 is sent exactly"):
        codec.encode(np.ones((5, 5)), TensorSpec("w", (5, 5), "int64"), Context())
    for spec in (TensorSpec("w", (5,)), TensorSpec("w", ()), TensorSpec("w", (5, 5), "int64")):
        for decode in (codec.decode, codec.warmth):
            with pytest.raises(FormatError, match="no matrix of floats"):
                decode(memoryview(bytes(9)), spec)


def test_huge_matrices_fit_or_are_refused_by_name() -> None:
    x = np.full((4, 6), 3e38, np.float32)
    with pytest.raises(EncodeError, match="'w': its factors do not fit a float32"):
        power(1).encode(x, TensorSpec("w", x.shape), Context())
    x[:, 1:] = 0
    x[1:] = 0
    assert error(there_and_back(power(1), x)[1], x) < 1e-10


def body_of(number: str, scales: list[float], numbers: list[float]) -> bytes:
    if number == "fp16":
        return np.array(scales, "<f4").tobytes() + np.array(numbers, "<f2").tobytes()
    planes = np.array(numbers, "<f4").view(np.uint8).reshape(-1, 4).T
    return planes.tobytes()


@pytest.mark.parametrize(
    ("number", "scales", "numbers", "kind"),
    [
        ("fp16", [np.nan], [1] * 5, NonFiniteError),
        ("fp16", [np.inf], [1] * 5, NonFiniteError),
        ("fp16", [-1], [1] * 5, FormatError),
        ("fp16", [1], [1, 1, 1, 1, np.inf], NonFiniteError),
        ("fp16", [1], [np.nan, 1, 1, 1, 1], NonFiniteError),
        ("float32", [], [1, 1, 1, 1, np.nan], NonFiniteError),
        ("float32", [], [-np.inf, 1, 1, 1, 1], NonFiniteError),
        ("fp16", [1], [1] * 4, TruncatedError),
        ("fp16", [1], [1] * 6, FormatError),
        ("fp16", [], [1], TruncatedError),
        ("float32", [], [1] * 4, TruncatedError),
    ],
)
def test_factors_that_no_encoder_writes(
    number: str, scales: list[float], numbers: list[float], kind: type[WireError]
) -> None:
    spec = TensorSpec("w", (2, 3))
    good = body_of(number, [1.0] if number == "fp16" else [], [1.0] * 5)
    np.testing.assert_array_equal(
        power(1, number).decode(memoryview(good), spec).dense(), np.ones(6)
    )
    with pytest.raises(kind):
        power(1, number).decode(memoryview(body_of(number, scales, numbers)), spec)
    inner = Pipeline([Codebook(4)], "rans").encode(np.ones((2, 3)), spec, Context())
    out = Writer()
    out.blob(inner)
    out.raw(body_of(number, scales, numbers))
    codec = LowRank(Pipeline([Codebook(4)], "rans"), FactorFormat.named(1, number, "raw"))
    with pytest.raises(kind):
        codec.decode(memoryview(out.getvalue()), spec)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"\x03\x00\x01\x04", "rank 0"),
        (b"\x03\x81\x02\x01\x04", "rank 257"),
        (b"\x03\x04\x02\x04", "format 2"),
        (b"\x03\x04\x01\x07", "background cannot code them"),
        (b"\x03\x04\x01\x63", "99 is unknown"),
        (b"\x03\x04\x01\x04\x00", "left over"),
        (b"\x04\x04\x01\x04\x01\x01\x00\x01", "lossless codec"),
        (b"\x04\x04\x01\x04\x00\x01", "raw cannot follow a tensor"),
    ],
)
def test_recipes_that_no_encoder_writes(body: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        read_recipe(memoryview(body), CODECS)


def test_recipes_cut_short() -> None:
    for codec in (power(300 % 256), low()):
        whole = recipe(codec)
        for size in range(len(whole)):
            with pytest.raises(TruncatedError):
                read_recipe(memoryview(whole[:size]), CODECS)


def test_formats_that_cannot_work_are_refused_when_named() -> None:
    for arguments, message in (
        ((0, "fp16", "rans"), "rank is 0"),
        ((257, "fp16", "rans"), "rank is 257"),
        ((4, "fp8", "rans"), "factors is 'fp8'; it must be one of float32, fp16"),
        ((4, "fp16", "background"), "background cannot code fp16 factors"),
    ):
        with pytest.raises(ConfigError, match=message):
            FactorFormat.named(*arguments)
    for text, message in (
        ("lowrank(bits=9)", "bits is 9"),
        ("lowrank(rounds=-1)", "rounds is -1"),
        ("powersgd(rank=0)", "rank is 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            preset(text)


def test_matrices_with_large_factors_are_sent_otherwise() -> None:
    few, many = TensorSpec("w", (8, 8)), TensorSpec("w", (64, 64))
    assert preset("powersgd(rank=8)").codec(few).lossless
    assert isinstance(preset("powersgd(rank=8)").codec(many), PowerSgd)
    assert isinstance(preset("lowrank(rank=8, factors=float32)").codec(few), Pipeline)
    assert isinstance(preset("lowrank(rank=8)").codec(many), LowRank)
