"""What each stage promises of ``decode(encode(x))``: its error bound, count and expectation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from flowerpress.compression import (
    ConfigError,
    Context,
    Decoded,
    Dense,
    EncodeError,
    FormatError,
    NonFiniteError,
    Sparse,
    TensorSpec,
    TruncatedError,
    UnknownNameError,
    WireError,
    Writer,
)
from flowerpress.compression.clusters import lloyd
from flowerpress.compression.kernels.select import largest
from flowerpress.compression.pipeline import Pipeline
from flowerpress.compression.stages import (
    STAGES,
    Codebook,
    Exact,
    Half,
    Int8,
    Prune,
    Qsgd,
    Stage,
    Ternary,
    TopK,
    stage_class,
)
from flowerpress.compression.stages.topk import kept
from flowerpress.compression.wire import Reader

QUICK = settings(deadline=None, max_examples=60)
F32 = np.finfo(np.float32)
TINY = 2.0**-149  # the smallest float32 above zero
SHAPES = st.sampled_from(
    [(), (0,), (1,), (7,), (300,), (1100,), (0, 5), (5, 0), (1, 1), (40, 1), (6, 50), (3, 4, 5)]
) | st.sampled_from([(2, 3, 4, 5), (2, 3, 1, 4, 2)])
KINDS = (
    "normal",
    "zeros",
    "negative zeros",
    "constant",
    "ties",
    "denormal",
    "huge",
    "one spike",
    "mixed",
)
LAYOUTS = ("c", "fortran", "strided", "read-only", "swapped")


def values(kind: str, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float32]:
    x = rng.standard_normal(shape, np.float32)
    if kind == "zeros":
        x = np.zeros(shape, np.float32)
    elif kind == "negative zeros":
        x = np.where(x < 0, np.float32(-0.0), np.float32(0.0))
    elif kind == "constant":
        x = np.full(shape, -0.375, np.float32)
    elif kind == "ties":
        x = np.rint(x)
    elif kind == "denormal":
        x = x * np.float32(2.0**-140)
    elif kind == "huge":
        x = np.clip(x, -1, 1) * F32.max
    elif kind == "one spike":
        x = np.zeros(shape, np.float32)
        x.reshape(-1)[-1:] = 5.0
    elif kind == "mixed":
        x = x * np.float32(10.0) ** rng.integers(-30, 30, shape).astype(np.float32)
    return np.asarray(x, np.float32)


def laid_out(x: NDArray[Any], layout: str) -> NDArray[Any]:
    """Return the same values, stored otherwise."""
    if layout == "fortran":
        return np.asfortranarray(x) if x.ndim > 1 else x
    if layout == "strided" and x.ndim:
        wide = np.repeat(x, 2, axis=-1)
        return wide[..., ::2]
    if layout == "swapped":
        return x.astype(x.dtype.newbyteorder(">"))
    if layout == "read-only":
        x = x.copy()
        x.setflags(write=False)
    return x


@st.composite
def tensors(draw: st.DrawFn, kinds: tuple[str, ...] = KINDS) -> NDArray[np.float32]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x = values(draw(st.sampled_from(kinds)), draw(SHAPES), rng)
    return laid_out(x, draw(st.sampled_from(LAYOUTS)))


def there_and_back(
    codec: Pipeline, x: NDArray[Any], dtype: str = "float32", seed: int = 0
) -> Decoded:
    spec = TensorSpec("w", x.shape, dtype)
    body = codec.encode(x, spec, Context(np.random.default_rng(seed)))
    return codec.decode(memoryview(body), spec)


def flat(x: NDArray[Any]) -> NDArray[np.float64]:
    return x.astype(np.float64).reshape(-1)


# --- exact ------------------------------------------------------------------------------------


@QUICK
@given(
    st.sampled_from(["float16", "float32", "float64", "int8", "uint16", "int64", "uint64", "bool"]),
    SHAPES,
    st.sampled_from(LAYOUTS),
    st.sampled_from(["raw", "rans", "zstd", "huffman", "pack"]),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_exact_keeps_every_bit(
    dtype: str, shape: tuple[int, ...], layout: str, code: str, planes: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    size = math.prod(shape) * np.dtype(dtype).itemsize
    octets = rng.integers(0, 2 if dtype == "bool" else 256, size, np.uint8)
    x = octets.view(dtype).reshape(shape).copy()
    if dtype.startswith("float"):
        x[~np.isfinite(x)] = -0.0
    decoded = there_and_back(Pipeline([Exact(planes)], code), laid_out(x, layout), dtype)
    assert isinstance(decoded, Dense)
    assert decoded.values.dtype == dtype
    assert decoded.values.tobytes() == x.tobytes()


def test_exact_takes_what_its_dtype_can_hold() -> None:
    codec = Pipeline([Exact()], "raw")
    # Averages of integers come as floats; whole ones fit.
    whole = there_and_back(codec, np.array([3.0, -7.0]), "int16")
    np.testing.assert_array_equal(whole.dense(), [3, -7])
    for x, dtype in (
        (np.array([0.5]), "int64"),
        (np.array([300]), "uint8"),
        (np.array([-1]), "uint32"),
        (np.array([np.nan]), "int32"),
        (np.array([2]), "bool"),
    ):
        with pytest.raises(EncodeError, match=rf"'w': .*{dtype} cannot hold"):
            there_and_back(codec, x, dtype)
    with pytest.raises(EncodeError, match="'w': a value does not fit float16"):
        there_and_back(codec, np.array([7e4], np.float32), "float16")


# --- half -------------------------------------------------------------------------------------


@QUICK
@given(tensors(("normal", "zeros", "negative zeros", "constant", "ties", "denormal")))
def test_half_is_within_2_to_the_minus_11(x: NDArray[np.float32]) -> None:
    got = flat(there_and_back(Pipeline([Half()], "raw"), x).dense())
    assert (np.abs(got - flat(x)) <= np.abs(flat(x)) * 2.0**-11 + 2.0**-25).all()


def test_half_refuses_what_it_would_make_infinite() -> None:
    codec = Pipeline([Half()], "raw")
    for edge in (65504.0, 65519.0, -65519.0):
        assert abs(there_and_back(codec, np.array([edge], np.float32)).dense()[0]) == 65504.0
    for beyond in (65520.0, -1e30):
        with pytest.raises(EncodeError, match="'w': a value beyond 65504"):
            there_and_back(codec, np.array([1.0, beyond], np.float32))


def test_every_half_pattern_decodes() -> None:
    patterns = np.arange(1 << 16, dtype="<u2")
    got = Pipeline([Half()], "raw").decode(
        memoryview(patterns.tobytes()), TensorSpec("w", (1 << 16,))
    )
    np.testing.assert_array_equal(got.dense(), patterns.view("<f2").astype(np.float32))
    assert not got.is_finite()


# --- int8 -------------------------------------------------------------------------------------


@QUICK
@given(tensors())
@example(np.full((3, 8), F32.max, np.float32))
@example(np.full((3, 8), np.float32(TINY), np.float32))
def test_int8_is_within_half_a_scale(x: NDArray[np.float32]) -> None:
    got = there_and_back(Pipeline([Int8()], "rans"), x).dense()
    assert np.isfinite(got).all()
    per_channel = x.ndim > 1 and x.size and x.size >= 4 * x.shape[0]
    rows = flat(np.ascontiguousarray(x)).reshape(x.shape[0] if per_channel else 1, -1)
    scales = np.abs(rows).max(axis=1, initial=0.0) / 127
    error = np.abs(flat(got).reshape(rows.shape) - rows)
    bound = scales * (0.5 + 2.0**-15) + 128 * TINY / 2
    assert (error <= bound[:, None]).all()


def test_int8_scales_never_outweigh_the_tensor() -> None:
    x = np.random.default_rng(1).standard_normal((20_000, 1)).astype(np.float32)
    body = Pipeline([Int8()], "rans").encode(x, TensorSpec("w", x.shape), Context())
    assert len(body) < x.size + 600


@pytest.mark.parametrize(
    ("scale", "error"),
    [(np.nan, NonFiniteError), (np.inf, NonFiniteError), (-1.0, FormatError), (3e38, FormatError)],
)
def test_int8_refuses_scales(scale: float, error: type[WireError]) -> None:
    body = np.float32(scale).tobytes() + bytes([200] * 5)
    with pytest.raises(error, match="scales"):
        Pipeline([Int8()], "raw").decode(memoryview(body), TensorSpec("w", (5,)))


# --- top-k ------------------------------------------------------------------------------------


def slow_largest(x: NDArray[np.float32], k: int) -> list[int]:
    """By sorting, one entry at a time."""
    order = sorted(range(x.size), key=lambda i: (-abs(float(x[i])), i))
    return sorted(order[:k])


@QUICK
@given(tensors(), st.floats(1e-4, 1.0), st.sampled_from(["c", "read-only"]), st.data())
def test_largest_equals_sorting(
    x: NDArray[np.float32], share: float, layout: str, data: st.DataObject
) -> None:
    line = laid_out(np.ascontiguousarray(x, np.float32).reshape(-1), layout)
    for k in {0, line.size, int(share * line.size), data.draw(st.integers(0, line.size))}:
        found = largest(line, k)
        assert found.dtype == np.int64
        assert found.tolist() == slow_largest(line, k)


def test_largest_with_ties_at_the_threshold() -> None:
    x = np.array([1, -2, 2, 0, -0.0, 2, 1, -1, 2], np.float32)
    for k in range(x.size + 1):
        assert largest(x, k).tolist() == slow_largest(x, k)
    same = np.full(1000, -3e-42, np.float32)
    assert largest(same, 10).tolist() == list(range(10))
    near = np.float32(1) + np.arange(64, dtype=np.float32) * F32.eps  # one bin of the histogram
    assert largest(near, 3).tolist() == [61, 62, 63]


@pytest.mark.parametrize("kind", KINDS)
def test_largest_of_a_large_tensor(kind: str) -> None:
    x = values(kind, (150_000,), np.random.default_rng(4))
    order = np.lexsort((np.arange(x.size), -np.abs(x)))
    for k in (1, 1500, 75_000, x.size - 1):
        np.testing.assert_array_equal(largest(x, k), np.sort(order[:k]))


@QUICK
@given(
    tensors(("normal", "zeros", "ties", "denormal", "one spike")),
    st.sampled_from([1e-9, 0.01, 0.1, 0.5, 0.999, 1.0]),
    st.sampled_from(["smallest", "address", "golomb", "rans", "bitmap"]),
)
def test_topk_keeps_exactly_k(x: NDArray[np.float32], density: float, mode: str) -> None:
    got = there_and_back(Pipeline([TopK(density, mode), Half()], "rans"), x)
    assert isinstance(got, Sparse)
    k = max(1, round(density * x.size)) if x.size else 0
    line = np.ascontiguousarray(x, np.float32).reshape(-1)
    assert got.positions.tolist() == slow_largest(line, k)
    assert got.values.dtype == np.float32
    assert got.size == x.size
    np.testing.assert_array_equal(got.values, line[got.positions].astype(np.float16))


def test_kept() -> None:
    assert [kept(n, 0.01) for n in (0, 1, 40, 149, 150, 151, 10_000)] == [0, 1, 1, 1, 2, 2, 100]
    assert kept(3, 1.0) == 3


def test_topk_refuses_more_entries_than_there_are() -> None:
    out = Writer()
    out.varint(6)
    out.blob(b"")
    with pytest.raises(FormatError, match="6 entries kept of 5"):
        Pipeline([TopK(), Half()], "raw").decode(
            memoryview(out.getvalue() + bytes(12)), TensorSpec("w", (5,))
        )


def test_topk_has_positions_for_tensors_up_to_4_gigaelements() -> None:
    codec = Pipeline([TopK(), Ternary()], "pack")
    huge = TensorSpec("w", (1 << 33,))
    with pytest.raises(FormatError, match="more than 2\\*\\*32 elements"):
        codec.decode(memoryview(bytes(8)), huge)
    empty = np.broadcast_to(np.float32(0), (1 << 33,))
    with pytest.raises(EncodeError, match="more than 2\\*\\*32 elements"):
        TopK().encode(empty, huge, Context(), Writer())


# --- ternary ----------------------------------------------------------------------------------


@QUICK
@given(tensors(), st.sampled_from([0.01, 0.3, 1.0]))
def test_ternary_is_the_mean_over_the_kept(x: NDArray[np.float32], density: float) -> None:
    got = there_and_back(Pipeline([TopK(density), Ternary()], "pack"), x)
    assert isinstance(got, Sparse)
    line = np.ascontiguousarray(x, np.float32).reshape(-1)
    chosen = line[slow_largest(line, kept(x.size, density))].astype(np.float64)
    mean = np.float32(math.fsum(abs(v) for v in chosen) / chosen.size) if chosen.size else 0
    np.testing.assert_allclose(np.abs(got.values), mean, rtol=2.0**-22, atol=TINY)
    np.testing.assert_array_equal(got.values < 0, (chosen < 0) & (mean > 0))


def test_ternary_refuses_magnitudes() -> None:
    codec = Pipeline([Ternary()], "pack")
    for bad, error in ((np.nan, NonFiniteError), (-np.inf, NonFiniteError), (-1.0, FormatError)):
        body = np.float32(bad).tobytes() + b"\x05"
        with pytest.raises(error):
            codec.decode(memoryview(body), TensorSpec("w", (3,)))


# --- qsgd -------------------------------------------------------------------------------------


@QUICK
@given(
    tensors(),
    st.sampled_from([1, 3, 7, 127, 128, 1 << 14]),
    st.sampled_from([1, 3, 512, 2**31 - 1]),
    st.integers(0, 1000),
)
def test_qsgd_max_is_within_a_step(
    x: NDArray[np.float32], levels: int, bucket: int, seed: int
) -> None:
    x = x * np.float32(0.5)  # a step times its levels may round up, beyond the largest float32
    got = flat(there_and_back(Pipeline([Qsgd(levels, bucket)], "rans"), x, seed=seed).dense())
    line = flat(np.ascontiguousarray(x))
    for start in range(0, line.size, bucket):
        part = slice(start, start + bucket)
        step = np.abs(line[part]).max() / levels
        # A step below the smallest float32 decodes to zeros.
        assert (np.abs(got[part] - line[part]) <= step * (1 + 2.0**-8) + levels * TINY).all()


@pytest.mark.parametrize("norm", ["max", "l2"])
def test_qsgd_is_unbiased(norm: str) -> None:
    rng = np.random.default_rng(3)
    x = rng.standard_normal(200).astype(np.float32)
    codec = Pipeline([Qsgd(2, 64, norm)], "pack")
    runs = 2000
    total = np.zeros(x.size)
    for seed in range(runs):
        there_and_back(codec, x, seed=seed).add_to(total)
    steps = [
        (np.abs(b).max() if norm == "max" else np.linalg.norm(b)) / 2
        for b in (x[i : i + 64] for i in range(0, 200, 64))
    ]
    # Each draw errs by less than a step, with a variance of at most a quarter of its square.
    deviation = np.repeat(steps, 64)[:200] / 2 / math.sqrt(runs)
    scores = np.abs(total / runs - x) / deviation
    assert scores.max() < 4.5
    assert scores.mean() < 1
    # A biased rounding of the same values is found out.
    assert (np.abs(np.rint(x / steps[0]) * steps[0] - x)[:64] / deviation[:64]).max() > 4.5


def test_qsgd_takes_what_fits_and_says_what_does_not() -> None:
    spec = TensorSpec("w", (512,))
    x = np.full(512, 3e38, np.float32)
    with pytest.raises(EncodeError, match="'w': a bucket's norm does not fit a float32"):
        Pipeline([Qsgd(norm="l2")], "rans").encode(x, spec, Context(np.random.default_rng()))
    with pytest.raises(EncodeError, match="'w': qsgd is stochastic"):
        Pipeline([Qsgd()], "rans").encode(x, spec, Context())


@pytest.mark.parametrize(
    ("step", "error"),
    [
        (np.nan, NonFiniteError),
        (np.inf, NonFiniteError),
        (-1.0, FormatError),
        (3e38, NonFiniteError),
    ],
)
def test_qsgd_refuses_steps(step: float, error: type[WireError]) -> None:
    body = np.float32(step).tobytes() + bytes(5)
    with pytest.raises(error, match="steps"):
        Pipeline([Qsgd()], "raw").decode(memoryview(body), TensorSpec("w", (5,)))


# --- codebook and prune -----------------------------------------------------------------------


@QUICK
@given(tensors(), st.sampled_from([1, 2, 3, 16, 256]))
def test_codebook_takes_the_nearest_centroid(x: NDArray[np.float32], clusters: int) -> None:
    codec = Pipeline([Codebook(clusters)], "rans")
    spec = TensorSpec("w", x.shape)
    body = codec.encode(x, spec, Context())
    centroids = np.frombuffer(body, "<f4", body[0] + 1, 1).astype(np.float64)
    assert 1 <= centroids.size <= clusters
    got = flat(codec.decode(memoryview(body), spec).dense())
    line = flat(np.ascontiguousarray(x))
    nearest = np.abs(line[:, None] - centroids).min(axis=1)
    np.testing.assert_array_equal(np.abs(got - line), nearest)


@QUICK
@given(tensors(("normal", "ties", "constant", "one spike")), st.sampled_from([1, 2, 3, 8]))
def test_lloyd_ends_in_a_fixpoint(x: NDArray[np.float32], clusters: int) -> None:
    line = np.ascontiguousarray(x, np.float32).reshape(-1)
    centroids = lloyd(line, clusters).astype(np.float64)
    assert (np.diff(centroids) > 0).all()
    nearest = np.abs(line[:, None].astype(np.float64) - centroids).argmin(axis=1)
    spread = float(np.ptp(line)) if line.size else 0.0
    for i, centroid in enumerate(centroids if line.size else []):
        # Rounding a centroid to float32 may move a value on a border to its neighbour.
        members = line[nearest == i].astype(np.float64)
        if members.size:
            assert abs(members.mean() - centroid) <= 1e-6 * abs(centroid) + spread / members.size**2


def test_lloyd_finds_separate_clusters() -> None:
    x = np.array([-5, -5.5, 0, 0.25, 0, 9, 9.5, 10], np.float32)
    np.testing.assert_allclose(lloyd(x, 3), [-5.25, 0.25 / 3, 9.5], rtol=1e-6)
    np.testing.assert_array_equal(lloyd(np.empty(0, np.float32), 3), [0])
    np.testing.assert_array_equal(lloyd(np.full(5, 2, np.float32), 3), [2])


def test_codebook_refuses_centroids() -> None:
    codec = Pipeline([Codebook()], "raw")
    spec = TensorSpec("w", (3,))
    for centroids, error in (
        ([0, np.nan], NonFiniteError),
        ([-np.inf, 0], NonFiniteError),
        ([1, 1], FormatError),
        ([2, 1], FormatError),
    ):
        body = b"\x01" + np.array(centroids, "<f4").tobytes() + bytes(3)
        with pytest.raises(error, match="centroids"):
            codec.decode(memoryview(body), spec)
    extremes = b"\x01" + np.array([-F32.max, F32.max], "<f4").tobytes() + bytes([0, 1, 1])
    assert codec.decode(memoryview(extremes), spec).dense()[0] == -F32.max
    with pytest.raises(TruncatedError):
        codec.decode(memoryview(b"\x02" + bytes(8)), spec)


@QUICK
@given(tensors(), st.sampled_from([0.01, 0.25, 1.0]))
def test_prune_zeroes_all_but_the_largest(x: NDArray[np.float32], density: float) -> None:
    line = np.ascontiguousarray(x, np.float32).reshape(-1)
    spec = TensorSpec("w", x.shape)
    pruned = Prune(density).encode(line, spec, Context(), Writer())
    assert isinstance(pruned, np.ndarray)
    where = slow_largest(line, kept(x.size, density))
    expected = np.zeros_like(line)
    expected[where] = line[where]
    np.testing.assert_array_equal(pruned, expected)


# --- parameters -------------------------------------------------------------------------------


@pytest.mark.parametrize("density", [0.0, -1.0, 1.5, math.nan, math.inf])
@pytest.mark.parametrize("stage", [TopK, Prune])
def test_densities_out_of_range(stage: type[TopK] | type[Prune], density: float) -> None:
    with pytest.raises(ConfigError, match="density is"):
        stage(density)


def test_parameters_out_of_range() -> None:
    with pytest.raises(UnknownNameError, match="unknown position mode 'bitmpa'; did you mean 'bit"):
        TopK(0.1, "bitmpa")
    for clusters in (0, 257):
        with pytest.raises(ConfigError, match="clusters is"):
            Codebook(clusters)
    for arguments, text in (((0,), "levels"), ((1 << 15,), "levels"), ((7, 0), "bucket")):
        with pytest.raises(ConfigError, match=f"{text} is"):
            Qsgd(*arguments)
    with pytest.raises(ConfigError, match="bucket is"):
        Qsgd(bucket=1 << 31)
    with pytest.raises(ConfigError, match="norm is 'l1'; it must be one of max, l2"):
        Qsgd(norm="l1")


@pytest.mark.parametrize(
    "stage",
    [Exact(), Exact(True), Half(), Int8(), TopK(), Prune(), Ternary(), Qsgd(3, 9), Codebook()],
    ids=Stage.describe,
)
def test_parameters_survive_where_a_decoder_needs_them(stage: Stage) -> None:
    out = Writer()
    stage.write_params(out)
    reader = Reader(out.getvalue(), "recipe")
    again = stage_class(stage.tag, "recipe").read_params(reader)
    reader.finish()
    second = Writer()
    again.write_params(second)
    assert second.getvalue() == out.getvalue()
    if isinstance(stage, TopK | Prune | Codebook):
        # What was not sent is not made up: neither shown nor used.
        assert again.describe() in ("top-k", "prune", "k-means")
        with pytest.raises(EncodeError, match=r"'w': a .* read from bytes cannot encode"):
            again.encode(np.zeros(3, np.float32), TensorSpec("w", (3,)), Context(), Writer())
    else:
        assert again.describe() == stage.describe()


def test_stage_parameters_that_no_encoder_writes() -> None:
    for bad in (b"\x00\x05", b"\x01\x00", b"\x81\x80\x01\x05", b"\x01\x80\x80\x80\x80\x08"):
        with pytest.raises(FormatError, match="qsgd"):
            Qsgd.read_params(Reader(bad, "recipe"))
    with pytest.raises(FormatError, match="exact: 2 is neither 0 nor 1"):
        Exact.read_params(Reader(b"\x02", "recipe"))
    with pytest.raises(FormatError, match="unknown stage tag 77"):
        stage_class(77, "recipe")


def test_tags_and_names_are_distinct_and_stay() -> None:
    assert {stage.tag: stage.name for stage in STAGES} == {
        1: "exact",
        2: "fp16",
        3: "int8",
        4: "topk",
        5: "prune",
        6: "ternary",
        7: "qsgd",
        8: "codebook",
        9: "bf16",
        10: "fp8",
        11: "integers",
        12: "nf4",
        13: "fp32",
        14: "randomk",
        15: "rows",
        30: "eden",
        31: "codebooks",
        50: "uniform",
    }
