"""What is kept of a tensor, or of all of them: which entries, how many, and at what cost."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from flowerpress.compression import (
    ConfigError,
    Context,
    Decoded,
    Dense,
    EncodeError,
    FormatError,
    Manifest,
    Pipeline,
    Plan,
    Sparse,
    TensorSpec,
    TruncatedError,
    UnknownNameError,
    Writer,
    encode_frames,
    preset,
)
from flowerpress.compression.entropy import subset_bits
from flowerpress.compression.kernels.select import (
    best,
    largest_in_chunks,
    largest_over,
    order_keys,
)
from flowerpress.compression.selection import GlobalTopK
from flowerpress.compression.stages import (
    ChunkTopK,
    Half,
    Int8,
    LargestRows,
    Picked,
    RandomK,
    Rows,
    Single,
    Ternary,
    Threshold,
    TopK,
)
from flowerpress.compression.stages.randomk import drawn

QUICK = settings(deadline=None, max_examples=50)
F32 = np.finfo(np.float32)
Arrays = dict[str, NDArray[Any]]


def decoded(
    text: str, arrays: Arrays, relevance: Arrays | None = None, seed: int = 0
) -> dict[str, Decoded]:
    manifest = Manifest.of(arrays)
    plan = preset(text).plan(manifest)
    rng = np.random.default_rng(seed)
    _, values = encode_frames(manifest, plan, arrays, rng, relevance=relevance or {})
    return dict(zip(arrays, values, strict=True))


def one(text: str, x: NDArray[Any], relevance: NDArray[Any] | None = None) -> Decoded:
    return decoded(text, {"w": x}, None if relevance is None else {"w": relevance})["w"]


def positions(value: Decoded) -> list[int]:
    assert isinstance(value, Sparse)
    return [int(position) for position in value.positions]


def size_of(text: str, arrays: Arrays) -> int:
    manifest = Manifest.of(arrays)
    frames, _ = encode_frames(
        manifest, preset(text).plan(manifest), arrays, np.random.default_rng(0)
    )
    return sum(len(frame.body) for frame in frames)


def slow_best(scores: list[NDArray[Any]], k: int) -> list[list[int]]:
    """The k largest scores of all lists by sorting, ties by list and index."""
    order = sorted((-float(s), part, i) for part, v in enumerate(scores) for i, s in enumerate(v))
    chosen = sorted((part, i) for _, part, i in order[:k])
    return [[i for p, i in chosen if p == part] for part in range(len(scores))]


@st.composite
def parts(draw: st.DrawFn) -> list[NDArray[np.float32]]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    sizes = draw(st.lists(st.sampled_from([0, 1, 5, 60, 300]), min_size=1, max_size=4))
    rough = draw(st.sampled_from([0, 1, 16]))  # few different values: ties
    out = [rng.standard_normal(n).astype(np.float32) for n in sizes]
    return [(np.rint(x * rough) / rough).astype(np.float32) for x in out] if rough else out


# --- kernels ----------------------------------------------------------------------------------


@QUICK
@given(parts(), st.floats(0, 1))
def test_the_largest_over_all_parts(x: list[NDArray[np.float32]], share: float) -> None:
    k = int(share * sum(part.size for part in x))
    expected = slow_best([np.abs(part) for part in x], k)
    assert [where.tolist() for where in largest_over(x, k)] == expected
    assert [where.tolist() for where in best([order_keys(p) for p in x], k)] == slow_best(
        [part + 0.0 for part in x], k
    )


@pytest.mark.parametrize("signed", [False, True])
def test_the_largest_over_large_parts(signed: bool) -> None:
    rng = np.random.default_rng(5)
    x = [(rng.integers(-3000, 3000, n) / 64).astype(np.float32) for n in (50_000, 7, 60_000)]
    scores = np.concatenate(x) if signed else np.abs(np.concatenate(x))
    order = np.lexsort((np.arange(scores.size), -scores))
    for k in (1, 999, 70_000, scores.size - 1):
        found = best([order_keys(part) for part in x], k) if signed else largest_over(x, k)
        starts = np.cumsum([0, *(part.size for part in x)])
        whole = np.concatenate([w + s for w, s in zip(found, starts[:-1], strict=True)])
        np.testing.assert_array_equal(whole, np.sort(order[:k]))


def test_keys_sort_like_scores() -> None:
    scores = np.array([-np.inf, -F32.max, -1, -1e-45, 0, 1e-45, 2, F32.max, np.inf], np.float32)
    assert (np.diff(order_keys(scores).astype(np.int64)) > 0).all()
    assert len(set(order_keys(np.array([-0.0, 0.0], np.float32)))) == 1


@QUICK
@given(
    st.integers(0, 3000),
    st.sampled_from([1, 2, 64, 1000, 5000]),
    st.sampled_from([0, 2]),
    st.integers(0, 2**32 - 1),
)
def test_the_largest_of_chunks(n: int, chunk: int, rough: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = np.abs(rng.standard_normal(n)).astype(np.float32)
    x = np.rint(x * rough) if rough else x
    sizes = [min(chunk, n - start) for start in range(0, n, chunk)]
    counts = np.array([rng.integers(0, size + 1) for size in sizes], np.int64)
    found = largest_in_chunks(x.view(np.uint32), chunk, counts)
    expected = [
        start + i
        for start, k in zip(range(0, n, chunk), counts, strict=True)
        for i in slow_best([x[start : start + chunk]], int(k))[0]
    ]
    assert found.tolist() == expected


# --- top-k over all tensors -------------------------------------------------------------------

GLOBAL = "topk(scope=global, density=0.1, values=fp32)"


def test_global_topk_keeps_exactly_k_of_all_and_breaks_ties_by_index() -> None:
    arrays: Arrays = {
        "a": np.array([[1, 3], [-2, 2]], np.float32),
        "n": np.array([9, 9, 9]),
        "b": np.array([2, -3, 0.5, 2], np.float32),
        "c": np.zeros((0, 3), np.float32),
        "d": np.array(-2.0),
    }
    for k, expected in (
        (1, [[1], [], []]),
        (2, [[1], [1], []]),
        (3, [[1, 2], [1], []]),
        (5, [[1, 2, 3], [0, 1], []]),
        (7, [[1, 2, 3], [0, 1, 3], [0]]),
    ):
        values = decoded(f"topk(scope=global, values=fp32, density={k / 9})", arrays)
        assert [positions(values[name]) for name in "abd"] == expected
        assert positions(values["c"]) == []
        np.testing.assert_array_equal(values["n"].dense(), [9, 9, 9])
        for name in "abd":
            kept = values[name]
            assert isinstance(kept, Sparse)
            np.testing.assert_array_equal(kept.values, arrays[name].reshape(-1)[kept.positions])


@QUICK
@given(parts(), st.sampled_from([0.01, 0.3, 1.0]))
def test_global_topk_equals_sorting(x: list[NDArray[np.float32]], density: float) -> None:
    arrays: Arrays = {f"{i}": part for i, part in enumerate(x)}
    total = sum(part.size for part in x)
    k = min(total, max(1, round(density * total)))
    values = decoded(f"topk(scope=global, values=fp32, density={density})", arrays)
    assert [positions(v) for v in values.values()] == slow_best([np.abs(p) for p in x], k)


def test_a_tensor_without_kept_entries_costs_two_bytes_and_all_share_a_recipe() -> None:
    rng = np.random.default_rng(0)
    arrays: Arrays = {f"b{i}": rng.standard_normal(100).astype(np.float32) / 99 for i in range(5)}
    arrays["w"] = rng.standard_normal(1000).astype(np.float32) + 9
    manifest = Manifest.of(arrays)
    for values in ("fp16", "int8", "nf4"):
        plan = preset(f"topk(scope=global, values={values})").plan(manifest)
        frames, _ = encode_frames(manifest, plan, arrays, None)
        assert {len(frame.body) for frame in frames[:5]} <= {2, 3}
        assert len({frame.codec.describe() for frame in frames}) == 1


def test_a_global_choice_beats_one_for_each_tensor() -> None:
    rng = np.random.default_rng(1)
    arrays: Arrays = {
        "weak": rng.standard_normal(5000).astype(np.float32) / 50,
        "strong": rng.standard_normal(5000).astype(np.float32),
    }
    errors = []
    for scope in ("tensor", "global"):
        values = decoded(f"topk(density=0.05, scope={scope}, values=fp32)", arrays)
        assert sum(len(positions(v)) for v in values.values()) == 500
        errors.append(sum(float(((values[n].dense() - x) ** 2).sum()) for n, x in arrays.items()))
    assert errors[1] < 0.85 * errors[0]


def test_the_rule_over_all_refuses_what_each_tensor_would() -> None:
    manifest = Manifest.of({"a": np.zeros(3, np.float32), "b": np.zeros(3)})
    plan = preset(GLOBAL).plan(manifest)
    for bad in (np.nan, np.inf, 1e39):
        with pytest.raises(EncodeError, match="'b'"):
            encode_frames(manifest, plan, {"a": np.zeros(3), "b": np.full(3, bad)}, None)
    with pytest.raises(ConfigError, match="does not start with a top-k that encodes"):
        GlobalTopK(Pipeline([Int8()], "rans"))
    with pytest.raises(ConfigError, match="does not start with a top-k that encodes"):
        GlobalTopK(Pipeline([TopK(None), Half()], "rans"))
    assert isinstance(plan, Plan)
    assert plan.codecs[0].biased


# --- relevance --------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["topk(density=0.25", "topk(scope=global, density=0.25"])
def test_relevance_selects_and_values_are_sent(text: str) -> None:
    x = np.array([[8.0, -7, 6, 5], [4, -3, 2, 1]], np.float32)
    scores = np.array([[-5.0, -4, -6, -9], [-4, -5, -4, -np.inf]])
    kept = one(f"{text}, values=fp32)", x, scores)
    assert positions(kept) == [1, 4]  # ties by index
    np.testing.assert_array_equal(kept.dense()[[1, 4]], [-7, 4])
    always = np.where(x == 1, np.inf, scores)
    assert positions(one(f"{text}, values=fp32)", x, always)) == [1, 7]


def test_relevance_over_all_tensors() -> None:
    rng = np.random.default_rng(3)
    arrays: Arrays = {name: rng.standard_normal(50).astype(np.float32) for name in "ab"}
    scores: Arrays = {name: rng.standard_normal(50) for name in "ab"}
    values = decoded(GLOBAL, arrays, scores)
    expected = slow_best([scores[n].astype(np.float32) for n in "ab"], 10)
    assert [positions(values[n]) for n in "ab"] == expected
    with pytest.raises(EncodeError, match="'b': no relevance, and others have one"):
        decoded(GLOBAL, arrays, {"a": scores["a"]})


@pytest.mark.parametrize(
    "text", ["topk", "topk(scope=global)", "stc", "sparseloco", "compeft", "structured"]
)
def test_relevance_that_does_not_fit(text: str) -> None:
    x = np.zeros((4, 4), np.float32)
    with pytest.raises(EncodeError, match=r"'w': relevance of shape \(4,\) for a tensor \(4, 4\)"):
        one(text, x, np.zeros(4))
    with pytest.raises(EncodeError, match="'w': relevance holds NaN"):
        one(text, x, np.full((4, 4), np.nan))


# --- threshold --------------------------------------------------------------------------------


@QUICK
@given(
    st.sampled_from([0.0, 0.5, 1.0, 3.0]),
    st.sampled_from(["rms", "absolute"]),
    st.sampled_from([1e-42, 1e-30, 1.0, 1e30, 1e37]),
    st.integers(0, 2**32 - 1),
)
def test_threshold_keeps_what_is_above(at: float, unit: str, factor: float, seed: int) -> None:
    x = np.random.default_rng(seed).standard_normal(200).astype(np.float32)
    x = x * np.float32(factor)
    limit = at if unit == "absolute" else at * math.sqrt(math.fsum(float(v) ** 2 for v in x) / 200)
    kept = one(f"threshold(at={at}, unit={unit}, values=fp32)", x)
    found = positions(kept)
    above = [i for i, v in enumerate(x) if abs(float(v)) > limit]
    # A root mean square may differ in its last bits.
    assert set(found) ^ set(above) <= {
        i for i, v in enumerate(x) if unit == "rms" and math.isclose(abs(v), limit, rel_tol=1e-12)
    }
    np.testing.assert_array_equal(kept.dense()[found], x[found])


def test_an_absolute_threshold_is_exact() -> None:
    edge = np.float32(0.1)  # slightly above 0.1
    x = np.array([edge, np.nextafter(edge, np.float32(0)), -edge], np.float32)
    assert positions(one("threshold(at=0.1, unit=absolute)", x)) == [0, 2]
    assert positions(one("threshold(at=0, unit=absolute)", np.array([0.0, 1e-45, -0.0]))) == [1]
    huge = np.full(3, F32.max, np.float32)
    assert positions(one("threshold(at=1e300, unit=absolute)", huge)) == []
    assert size_of("threshold(at=1e300, unit=absolute)", {"w": np.zeros((50, 50))}) == 2
    for at in (-1.0, math.inf, math.nan):
        with pytest.raises(ConfigError, match="at is"):
            Threshold(at)
    with pytest.raises(ConfigError, match="unit is 'sigma'; it must be one of rms, absolute"):
        preset("threshold(unit=sigma)")


# --- random-k ---------------------------------------------------------------------------------


def splitmix64(state: int) -> Iterator[int]:
    mask = (1 << 64) - 1
    while True:
        state = (state + 0x9E3779B97F4A7C15) & mask
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        yield z ^ (z >> 31)


def slow_sample(seed: int, k: int, n: int) -> list[int]:
    """Algorithm S in Python's integers."""
    out: list[int] = []
    for i, z in zip(range(n), splitmix64(seed), strict=False):
        if (z >> 32) * (n - i) >> 32 < k - len(out):
            out.append(i)
    return out


@QUICK
@given(st.integers(0, 2**64 - 1), st.integers(0, 400), st.floats(0, 1))
def test_positions_follow_from_the_seed_by_integers_alone(seed: int, n: int, share: float) -> None:
    k = int(share * n)
    where = drawn(seed, k, n)
    assert where.tolist() == slow_sample(seed, k, n)
    assert len(set(where.tolist())) == k


def test_the_generator_is_splitmix64() -> None:
    # The first outputs for the seed 1234567, as other implementations print them.
    outputs = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert list(islice(splitmix64(1234567), 3)) == outputs
    # Of two positions the first is taken when the highest bit of the first number is 0.
    for seed in range(64):
        first = next(splitmix64(seed)) >> 63 == 0
        assert drawn(seed, 1, 2).tolist() == [0 if first else 1]


def test_every_subset_is_equally_likely() -> None:
    n, k, runs = 6, 3, 20_000
    counts: dict[tuple[int, ...], int] = {}
    for seed in range(runs):
        key = tuple(drawn(seed * 0x9E3779B97F4A7C15 % 2**64, k, n).tolist())
        counts[key] = counts.get(key, 0) + 1
    subsets = math.comb(n, k)
    assert len(counts) == subsets
    deviation = math.sqrt(runs * (1 / subsets) * (1 - 1 / subsets))
    assert max(abs(c - runs / subsets) for c in counts.values()) < 5 * deviation


def test_randomk_is_unbiased() -> None:
    rng = np.random.default_rng(7)
    x = rng.standard_normal(120).astype(np.float32)
    for values in ("fp32", "qsgd"):
        codec = preset(f"randomk(density=0.1, values={values})").codec(TensorSpec("w", (120,)))
        assert not codec.biased
        runs = 2000
        total, spec = np.zeros(120), TensorSpec("w", (120,))
        draws = np.random.default_rng(11)
        for _ in range(runs):
            body = codec.encode(x, spec, Context(draws))
            codec.decode(memoryview(body), spec).add_to(total)
        # Ten times the value with probability 0.1: variance 9 x^2; qsgd adds that of its levels.
        step = 10 * np.abs(x).max() / 127 if values == "qsgd" else 0.0
        deviation = np.sqrt((9 * x.astype(np.float64) ** 2 + 0.1 * step**2 / 4) / runs)
        scores = np.abs(total / runs - x) / deviation
        assert scores.max() < 5
        # What is not scaled is ten times too small, and that would be found out.
        assert (np.abs(total / runs / 10 - x) / deviation).max() > 5


def test_randomk_sends_a_seed_and_no_positions() -> None:
    x = np.random.default_rng(2).standard_normal(10_000).astype(np.float32)
    assert size_of("randomk(density=0.1, coder=raw)", {"w": x}) == 2 + 8 + 4 * 1000
    plain = one("randomk(density=0.1, scale=plain)", x)
    found = positions(plain)
    assert len(found) == 1000
    np.testing.assert_array_equal(plain.dense()[found], x[found])
    scaled = one("randomk(density=0.1)", x)
    np.testing.assert_array_equal(scaled.dense(), plain.dense() * np.float32(10))
    assert preset("randomk(scale=plain)").codec(TensorSpec("w", (9,))).biased


def test_randomk_refuses() -> None:
    spec = TensorSpec("w", (100,))
    codec = Pipeline([RandomK(0.01), Single()], "raw")
    with pytest.raises(EncodeError, match="'w': random-k is stochastic"):
        codec.encode(np.zeros(100), spec, Context())
    with pytest.raises(EncodeError, match="'w': a value times 100 does not fit a float32"):
        codec.encode(np.full(100, 1e37), spec, Context(np.random.default_rng(0)))
    with pytest.raises(FormatError, match="101 entries kept of 100"):
        codec.decode(memoryview(b"\x65" + bytes(8)), spec)
    with pytest.raises(TruncatedError):
        codec.decode(memoryview(b"\x02" + bytes(7)), spec)
    with pytest.raises(FormatError, match="more than 2"):
        codec.decode(memoryview(b"\x02" + bytes(16)), TensorSpec("w", (1 << 33,)))
    with pytest.raises(UnknownNameError, match="scale of randomk 'none'"):
        preset("randomk(scale=none)")
    with pytest.raises(EncodeError, match="read from bytes cannot encode"):
        Pipeline([RandomK(None), Single()], "raw").encode(np.zeros(100), spec, Context())


# --- rows -------------------------------------------------------------------------------------


@QUICK
@given(
    st.sampled_from([(1, 1), (1, 9), (30, 1), (30, 7), (200, 2, 2), (5, 0), (0, 5), (400, 3)]),
    st.sampled_from([0.0, 0.02, 0.5, 1.0]),
    st.sampled_from(["fp32", "int8", "nf4"]),
    st.integers(0, 2**32 - 1),
)
def test_rowsparse_keeps_the_rows_that_are_not_zero(
    shape: tuple[int, ...], share: float, values: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape).astype(np.float32)
    x[rng.random(shape[0]) >= share] = -0.0
    x[rng.random(shape) < 0.3] = 0
    kept = one(f"rowsparse(values={values})", x)
    got = kept.dense().reshape(shape)
    touched = x.any(axis=tuple(range(1, x.ndim)))
    assert not got[~touched].any()
    if values == "fp32":
        np.testing.assert_array_equal(got, x)
    else:
        others = tuple(range(1, x.ndim))
        tops = np.abs(x).max(axis=others, initial=0)
        error = np.abs(got - x).max(axis=others, initial=0)
        bound = tops if values == "int8" and x.size > shape[0] else np.abs(x).max(initial=0)
        assert (error <= bound * (0.005 if values == "int8" else 0.16)).all()
    # Sparse in memory only where that is smaller.
    if x.size:
        assert isinstance(kept, Sparse) == (touched.sum() <= shape[0] / 4)


def test_untouched_rows_cost_nearly_nothing() -> None:
    rng = np.random.default_rng(4)
    x = np.zeros((30_000, 64), np.float32)
    rows = np.sort(rng.choice(30_000, 300, replace=False))
    x[rows] = rng.standard_normal((300, 64)) / 100
    size = size_of("rowsparse(values=fp16, coder=raw)", {"w": x})
    values = 300 * 64 * 2
    assert values < size < values + 1.05 * subset_bits(300, 30_000) / 8 + 60
    assert size_of("rowsparse", {"w": np.zeros((30_000, 64), np.float32)}) == 2


def test_structured_keeps_the_rows_of_largest_norm() -> None:
    x = np.zeros((8, 3, 1), np.float32)
    for row, norm in enumerate((1, 5, 2, 5, 0.5, 3, 5, 4)):
        x[row, row % 3] = (-1) ** row * norm
    for density, rows in ((0.01, [1]), (0.25, [1, 3]), (0.5, [1, 3, 6, 7])):
        got = one(f"structured(density={density}, values=fp32)", x).dense().reshape(x.shape)
        np.testing.assert_array_equal(got[rows], x[rows])
        assert not np.delete(got, rows, axis=0).any()
    scores = np.zeros(x.shape)
    scores[[2, 4], 1] = 1
    got = one("structured(density=0.25, values=fp32)", x, scores).dense().reshape(x.shape)
    assert np.flatnonzero(got.any(axis=(1, 2))).tolist() == [2, 4]
    huge = np.full((4, 4), F32.max, np.float32)
    assert np.isfinite(one("structured(density=0.5, values=int8)", huge).dense()).all()
    with pytest.raises(EncodeError, match="'w': a row is to be kept always and never"):
        one("structured", x, np.where(np.arange(3)[:, None] == 1, np.inf, -np.inf) + 0 * x)


def test_one_axis_is_sent_whole_by_what_sends_rows() -> None:
    x = np.arange(5, dtype=np.float32)
    for text in ("rowsparse", "structured(density=0.1)"):
        np.testing.assert_array_equal(one(text, x).dense(), x)
        assert preset(text).codec(TensorSpec("b", (5,))).describe() == "fp16 > rans"


def test_rows_refused() -> None:
    codec, spec = Pipeline([Rows(), Single()], "raw"), TensorSpec("w", (4, 2))
    with pytest.raises(FormatError, match="5 rows kept of 4"):
        codec.decode(memoryview(b"\x05\x00" + bytes(40)), spec)
    with pytest.raises(FormatError, match="more than 2\\*\\*32 rows"):
        codec.decode(memoryview(b"\x01\x00" + bytes(40)), TensorSpec("w", (1 << 33, 1)))
    with pytest.raises(TruncatedError):
        codec.decode(memoryview(b"\x01\x03\x01"), spec)
    with pytest.raises(ConfigError, match="density is"):
        LargestRows(0)
    whole = codec.decode(memoryview(b"\x04\x00" + bytes(32)), spec)
    assert isinstance(whole, Dense)


# --- who chose is not on the wire -------------------------------------------------------------


def test_all_choices_of_entries_share_a_stage() -> None:
    x = np.array([5.0, 0, -1, 3], np.float32)
    spec = TensorSpec("w", (4,))
    bodies = {
        Pipeline([stage, Ternary(2.0)], "pack").encode(x, spec, Context())
        for stage in (
            TopK(0.5),
            Threshold(1.5, "absolute"),
            ChunkTopK(2, 4),
            Picked(np.array([0, 3])),
        )
    }
    out = Writer()
    out.varint(2)
    out.blob(b"\x00\x0c")  # addresses 0 and 3 in two bits each
    out.f32(2.0)
    assert bodies == {out.getvalue() + b"\x00"}
    assert {TopK.tag, Threshold.tag, ChunkTopK.tag, Picked.tag} == {4}
    assert {Rows.tag, LargestRows.tag} == {15}
