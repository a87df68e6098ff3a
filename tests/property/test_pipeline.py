"""Pipelines: what may follow what, what cannot be encoded, and values that add up."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from flowerpress.compression import (
    CODECS,
    ConfigError,
    Context,
    Dense,
    EncodeError,
    FlowerpressError,
    FormatError,
    Frame,
    LimitError,
    Limits,
    Manifest,
    ManifestError,
    NonFiniteError,
    Plan,
    Sparse,
    TensorSpec,
    TruncatedError,
    UnknownNameError,
    Writer,
    apply_frames,
    compensate,
    decode_frames,
    difference,
    encode_frames,
    model_digest,
    preset,
    read_recipe,
    recipe,
    residual,
)
from flowerpress.compression.pipeline import Pipeline
from flowerpress.compression.stages import (
    Bfloat,
    Codebook,
    Exact,
    Float8,
    Half,
    Int8,
    Integers,
    Normal4,
    Prune,
    Qsgd,
    RandomK,
    Rows,
    Single,
    Stage,
    Ternary,
    TopK,
)
from flowerpress.compression.stages.scales import CHANNEL

QUICK = settings(deadline=None, max_examples=60)


@pytest.mark.parametrize(
    ("stages", "code", "message"),
    [
        ([], "rans", "rans cannot follow a tensor"),
        ([TopK()], "pack", "pack cannot follow topk"),
        ([Prune()], "raw", "raw cannot follow prune"),
        ([Half(), Half()], "raw", "fp16 cannot follow fp16"),
        ([Ternary(), TopK()], "raw", "topk cannot follow ternary"),
        ([TopK(), Exact()], "raw", "exact cannot follow topk"),
        ([TopK(), Int8()], "raw", "int8 cannot follow topk"),
        ([TopK(), Prune(), Half()], "raw", "prune cannot follow topk"),
        ([TopK(), TopK(), Half()], "raw", "topk cannot follow topk"),
        # A decoder would have to select from what is not there yet.
        ([Prune(), TopK(), Half()], "raw", "topk cannot follow prune: what selects .* first"),
        ([RandomK(), Rows(), Half()], "raw", "rows cannot follow randomk: it takes every element"),
        # Channels are known of whole tensors only.
        ([TopK(), Float8("e4m3", CHANNEL)], "raw", "fp8 cannot follow topk: it takes every el"),
        ([Single(), Integers()], "raw", "integers cannot follow fp32"),
        ([Single()], "background", "background cannot follow fp32: .* is given 4294967296"),
        ([Half()], "background", "background cannot follow fp16: .* 256 .* is given 65536"),
        ([Qsgd(128)], "background", "background cannot follow qsgd: .* is given 257"),
    ],
)
def test_a_wrong_order_is_named_at_construction(
    stages: list[Stage], code: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        Pipeline(stages, code)


@pytest.mark.parametrize(
    ("stages", "code", "lossless", "biased", "text"),
    [
        ([Exact()], "raw", True, False, "exact bytes > raw"),
        ([Exact(True)], "zstd", True, False, "exact bytes by plane > zstd"),
        ([Half()], "huffman", False, True, "fp16 > huffman"),
        ([Int8()], "background", False, True, "int8 > background"),
        ([TopK(0.05), Ternary()], "pack", False, True, "top-k 5% > ternary > pack"),
        ([TopK(0.05), Qsgd(3)], "rans", False, True, "top-k 5% > qsgd 3 levels, buckets of 512"),
        ([Qsgd(3, 64)], "rans", False, False, "qsgd 3 levels, buckets of 64 > rans"),
        ([RandomK(0.5), Single()], "rans", False, False, "random-k 50%, scaled > fp32 > rans"),
        ([RandomK(0.5), Bfloat()], "raw", False, True, "random-k 50%, scaled > bf16 > raw"),
        ([Rows(), Single()], "zstd", False, False, "rows that are not zero > fp32 > zstd"),
        (
            [Prune(), Integers(4, CHANNEL)],
            "pack",
            False,
            True,
            "prune to 20% > int4, a scale for a",
        ),
        ([Rows(), Normal4(7)], "huffman", False, True, "rows that are not zero > nf4, a scale"),
        ([Prune(), Prune(0.1), Codebook(5)], "golomb", False, True, "prune to 20% > prune to 10%"),
    ],
)
def test_right_orders(
    stages: list[Stage], code: str, lossless: bool, biased: bool, text: str
) -> None:
    codec = Pipeline(stages, code)
    assert (codec.lossless, codec.biased) == (lossless, biased)
    assert codec.describe().startswith(text)
    x = np.random.default_rng(5).standard_normal((6, 7)).astype(np.float32)
    spec = TensorSpec("w", x.shape)
    body = codec.encode(x, spec, Context(np.random.default_rng(0)))
    again = read_recipe(memoryview(recipe(codec)), CODECS)
    assert recipe(again) == recipe(codec)
    assert (again.lossless, again.biased) == (lossless, biased)
    np.testing.assert_array_equal(
        again.decode(memoryview(body), spec).dense(), codec.decode(memoryview(body), spec).dense()
    )


def test_an_unknown_coder_is_named() -> None:
    with pytest.raises(UnknownNameError, match="unknown coder 'ran'; did you mean 'rans'"):
        Pipeline([Half()], "ran")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"\x4d", "unknown codec tag 77; the sender may be newer"),
        (b"\x01\x09", "9 stages, at most 8"),
        (b"\x01\x01\x1d\x01", "unknown stage tag 29"),
        (b"\x01\x01\x02\x08", "unknown"),
        (b"\x01\x00\x01", "raw cannot follow a tensor"),
        (b"\x01\x02\x02\x02\x01", "fp16 cannot follow fp16"),
        (b"\x01\x03\x05\x04\x02\x01", "topk cannot follow prune"),
        (b"\x01\x01\x02\x07", "background cannot follow fp16"),
        (b"\x01\x01\x02\x01\x00", "left over"),
    ],
)
def test_recipes_that_no_encoder_writes(body: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        read_recipe(memoryview(body), CODECS)


def test_a_recipe_cut_short() -> None:
    whole = recipe(Pipeline([Qsgd(300, 4000)], "rans"))
    for size in range(len(whole)):
        with pytest.raises(TruncatedError):
            read_recipe(memoryview(whole[:size]), CODECS)


EVERY = [
    "none",
    "lossless",
    "fp16",
    "int8",
    "topk(density=0.1)",
    "qsgd",
    "stc(density=0.1)",
    "fedzip",
]


@pytest.mark.parametrize("text", EVERY)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_what_is_not_finite_is_refused_by_name(text: str, bad: float, dtype: str) -> None:
    arrays = {"fine": np.ones((3, 4), dtype), "layer.weight": np.ones((4, 5), dtype)}
    arrays["layer.weight"][3, 4] = bad
    manifest = Manifest.of(arrays)
    with pytest.raises(EncodeError, match=r"tensor 'layer.weight': NaN or infinity") as caught:
        encode_frames(manifest, preset(text).plan(manifest), arrays, np.random.default_rng(0))
    assert caught.value.tensor == "layer.weight"


def test_what_does_not_fit_single_precision_is_refused() -> None:
    with pytest.raises(EncodeError, match="'w': a value does not fit a float32"):
        Pipeline([Int8()], "rans").encode(
            np.array([1e300]), TensorSpec("w", (1,), "float64"), Context()
        )


def test_another_shape_is_refused() -> None:
    with pytest.raises(EncodeError, match=r"'w': shape \(2, 3\) where the model has \(3, 2\)"):
        Pipeline([Half()], "raw").encode(np.zeros((2, 3)), TensorSpec("w", (3, 2)), Context())


def test_integers_are_sent_exactly_or_not_at_all() -> None:
    spec = TensorSpec("steps", (3,), "int64")
    with pytest.raises(EncodeError, match="'steps': int64 is sent exactly"):
        Pipeline([Half()], "raw").encode(np.arange(3), spec, Context())
    with pytest.raises(FormatError, match="a lossy codec for a tensor of int64"):
        Pipeline([Half()], "raw").decode(memoryview(bytes(6)), spec)


def test_errors_of_coders_name_the_tensor() -> None:
    manifest = Manifest((TensorSpec("head.bias", (4,)),))
    frame = Frame(0, Pipeline([Half()], "raw"), b"\0" * 7)
    with pytest.raises(TruncatedError, match=r"frame\['head.bias'\]: raw body: needs 8 bytes"):
        list(decode_frames(manifest, [frame]))


def test_a_frame_that_decodes_to_infinity() -> None:
    manifest = Manifest((TensorSpec("w", (2,)),))
    body = np.array([1, np.inf], "<f2").tobytes()
    with pytest.raises(NonFiniteError, match=r"frame\['w'\]: decodes to NaN or infinity"):
        list(decode_frames(manifest, [Frame(0, Pipeline([Half()], "raw"), body)]))


@pytest.mark.parametrize("change", [False, True])
@pytest.mark.parametrize("stages", [[Int8()], [TopK(1.0), Ternary()]])
def test_values_that_overflow_the_model(change: bool, stages: list[Stage]) -> None:
    big = {"w": np.full((2, 4), 6e4, np.float16)}
    manifest = Manifest.of(big)
    codec = Pipeline(stages, "rans")
    body = codec.encode(np.full((2, 4), 9e4, np.float32), manifest.specs[0], Context())
    with pytest.raises(NonFiniteError, match="overflows float16 in the model"):
        apply_frames(manifest, big, [Frame(0, codec, body)], change=change)
    assert (big["w"] == np.float16(6e4)).all()


# --- decoded values ---------------------------------------------------------------------------


@QUICK
@given(
    st.integers(0, 40),
    st.sampled_from([1.0, -1.0, 0.25, 7.5]),
    st.sampled_from([np.float32, np.float64]),
    st.integers(0, 2**32 - 1),
)
def test_adding_sparse_equals_adding_dense(
    k: int, weight: float, dtype: type[np.floating[Any]], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    where = np.sort(rng.choice(40, k, replace=False)).astype(np.int64)
    sparse = Sparse(where, rng.standard_normal(k).astype(np.float32), 40)
    dense = Dense(sparse.dense())
    assert dense.values.dtype == np.float32
    start: NDArray[Any] = rng.standard_normal(40).astype(dtype)
    totals = start.copy(), start.copy(), start + weight * dense.values.astype(dtype)
    sparse.add_to(totals[0], weight)
    dense.add_to(totals[1], weight)
    np.testing.assert_array_equal(totals[0], totals[1])
    np.testing.assert_array_equal(totals[1], totals[2].astype(dtype))
    assert sparse.is_finite()
    assert dense.is_finite()
    assert dense.dense() is dense.values


def test_decoded_values_know_whether_they_are_finite() -> None:
    bad = np.array([0, np.nan], np.float32)
    assert not Dense(bad).is_finite()
    assert not Sparse(np.array([3, 4]), bad, 9).is_finite()


@QUICK
@given(st.sampled_from(EVERY), st.integers(0, 2**32 - 1))
def test_error_feedback_loses_nothing(text: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    arrays: dict[str, NDArray[Any]] = {
        "w": rng.standard_normal((8, 20)).astype(np.float32),
        "double": rng.standard_normal((3, 5)),
        "scalar": np.array(rng.standard_normal(), np.float32),
        "empty": np.zeros((0, 3), np.float32),
        "count": np.array(7),
    }
    manifest = Manifest.of(arrays)
    plan = preset(text).plan(manifest)
    frames, decoded = encode_frames(manifest, plan, arrays, np.random.default_rng(seed))
    rest = residual(manifest, plan, arrays, decoded)
    biased = {s.name for s, c in zip(manifest.specs, plan.codecs, strict=True) if c.biased}
    assert rest.keys() == biased
    assert "count" not in biased
    for spec, value in zip(manifest.specs, decoded, strict=True):
        if spec.name in rest:
            assert rest[spec.name].dtype == np.float32
            assert rest[spec.name].shape == spec.shape
            again = value.dense().reshape(spec.shape) + rest[spec.name].astype(np.float64)
            scale = np.abs(value.dense()).max(initial=0) + np.abs(arrays[spec.name]).max(initial=0)
            np.testing.assert_allclose(again, arrays[spec.name], rtol=0, atol=2.0**-23 * scale)
    # What encode_frames reports is what a receiver decodes.
    for (index, got), mine in zip(decode_frames(manifest, frames), decoded, strict=True):
        np.testing.assert_array_equal(got.dense(), mine.dense(), manifest.specs[index].name)


def test_compensate_adds_residuals_where_there_are_some() -> None:
    delta = {"a": np.array([1.0, 2.0], np.float32), "b": np.array([5])}
    manifest = Manifest.of(delta)
    got = compensate(manifest, delta, {"a": np.array([0.5, -1.0], np.float32)})
    np.testing.assert_array_equal(got["a"], [1.5, 1.0])
    assert got["b"] is delta["b"]
    np.testing.assert_array_equal(delta["a"], [1, 2])


def test_residuals_of_many_rounds_bring_everything_across() -> None:
    x = {"w": np.random.default_rng(2).standard_normal((10, 30)).astype(np.float32)}
    manifest = Manifest.of(x)
    plan = preset("stc(density=0.1)").plan(manifest)
    arrived = {"w": np.zeros((10, 30), np.float32)}
    rest: dict[str, NDArray[np.float32]] = {}
    nothing = {"w": np.zeros((10, 30), np.float32)}
    for turn in range(60):
        tensors = compensate(manifest, nothing if turn else x, rest)
        frames, decoded = encode_frames(manifest, plan, tensors, None)
        rest = residual(manifest, plan, tensors, decoded)
        arrived = apply_frames(manifest, arrived, frames, change=True)
    lost = float(((arrived["w"] - x["w"]) ** 2).sum() / (x["w"] ** 2).sum())
    assert lost < 0.02


def test_apply_frames_leaves_what_has_no_frame() -> None:
    arrays = {"a": np.ones((2, 3), np.float32), "n": np.array(4)}
    manifest = Manifest.of(arrays)
    codec = Pipeline([Exact()], "raw")
    body = codec.encode(np.array(9), manifest.specs[1], Context())
    out = apply_frames(manifest, arrays, [Frame(1, codec, body)], change=True)
    assert out["a"] is arrays["a"]
    assert (int(out["n"]), int(arrays["n"])) == (9, 4)  # integers are values, never differences


# --- manifests, plans -------------------------------------------------------------------------


def test_manifests_tell_tensors_apart() -> None:
    base = Manifest((TensorSpec("a", (2, 3)), TensorSpec("b", ())))
    assert (base.size, base.nbytes, len(base)) == (7, 28, 2)
    others = [
        (TensorSpec("a", (3, 2)), TensorSpec("b", ())),
        (TensorSpec("a", (2, 3)), TensorSpec("b", (1,))),
        (TensorSpec("a", (2, 3), "float16"), TensorSpec("b", ())),
        (TensorSpec("b", ()), TensorSpec("a", (2, 3))),
        (TensorSpec("a", (2, 3)),),
        (TensorSpec("", (2, 3)), TensorSpec("ab", ())),
    ]
    assert len({Manifest(specs).digest for specs in [base.specs, *others]}) == 1 + len(others)
    swapped = {"a": np.zeros((2, 3), ">f4"), "b": np.zeros((), "<f4")}
    assert Manifest.of(swapped) == base
    with pytest.raises(ConfigError, match="same name"):
        Manifest((TensorSpec("a", ()), TensorSpec("a", (1,))))
    with pytest.raises(ConfigError, match="'z' has dtype complex64, which cannot be sent"):
        TensorSpec("z", (), "complex64")


def test_model_digests_tell_bits_apart() -> None:
    arrays: dict[str, NDArray[Any]] = {"a": np.arange(6.0).reshape(2, 3), "b": np.array(True)}
    manifest = Manifest.of(arrays)
    digest = model_digest(manifest, arrays)
    assert len(digest) == 16
    same = {"a": np.asfortranarray(arrays["a"]).astype(">f8"), "b": arrays["b"]}
    assert model_digest(manifest, same) == digest
    negative = {"a": arrays["a"] * np.array([-1.0, 1, 1]), "b": arrays["b"]}  # only -0.0 and -3
    assert model_digest(manifest, negative) != digest


def test_matching_a_model() -> None:
    manifest = Manifest((TensorSpec("a", (2,)), TensorSpec("b", ())))
    a, b = np.zeros(2, np.float32), np.zeros((), np.float32)
    matched = manifest.match({"b": b, "a": a})
    assert list(matched) == ["a", "b"]
    assert matched["a"] is a
    assert matched["b"] is b
    for arrays, message in (
        ({"a": a}, "missing from the model: b"),
        ({"a": a, "b": b, "c": b}, "not in the model that training began with: c"),
        ({"a": b, "b": b}, r"tensors\['a'\]: shape \(\), the model has \(2,\)"),
    ):
        with pytest.raises(ManifestError, match=message):
            manifest.match(arrays)


@pytest.mark.parametrize(
    ("dtype", "given", "expected"),
    [
        ("float32", np.array([1.5, 1e300]), np.array([1.5, np.inf], "f4")),
        ("int64", np.array([1.4, 6.6]), np.array([1, 7])),
        ("uint8", np.array([3, 255], np.int64), np.array([3, 255], np.uint8)),
        ("bool", np.array([0.2, 1.7]), np.array([False, True])),
        # For a codec to refuse.
        ("int32", np.array([1e30, 0]), np.array([1e30, 0])),
        ("int32", np.array([np.nan, 0]), np.array([np.nan, 0])),
        ("bool", np.array([np.nan, 0]), np.array([np.nan, 0])),
        ("uint8", np.array([-1, 0]), np.array([-1, 0])),
    ],
)
def test_matching_narrows_what_was_widened(
    dtype: str, given: NDArray[Any], expected: NDArray[Any]
) -> None:
    found = Manifest((TensorSpec("a", (2,), dtype),)).match({"a": given})["a"]
    np.testing.assert_array_equal(found, expected, strict=True)


def test_a_difference_is_taken_in_the_widest_of_the_dtypes() -> None:
    manifest = Manifest((TensorSpec("a", (1,), "float64"), TensorSpec("n", (1,), "int64")))
    before = {"a": np.array([1e9]), "n": np.array([5])}
    after = {"a": np.array([1e9 + 1]), "n": np.array([6])}
    change = difference(manifest, after, before)
    np.testing.assert_array_equal(change["a"], np.ones(1, np.float32), strict=True)
    assert change["n"] is after["n"]
    half = Manifest((TensorSpec("h", (1,), "float16"),))
    top = np.array([6e4], np.float16)
    assert difference(half, {"h": top}, {"h": -top})["h"].item() == 2 * float(top[0])


@pytest.mark.parametrize(
    ("shapes", "limits", "message"),
    [
        ([(1,)] * 4, Limits(max_tensors=3), "4 tensors, at most 3"),
        ([(1,) * 17], Limits(), "more than 16 dimensions"),
        ([(5, 5), (5, 5)], Limits(max_elements=49), "50 elements, at most 49"),
        ([(1 << 34,)], Limits(), "more than 8589934592 elements"),
        ([(2**63,) * 16], Limits(), "more than 8589934592 elements"),
        # Empty, and yet no array may have that shape.
        ([(2**63, 0)], Limits(), "if it were not empty"),
        ([(2**33, 0, 2**33)], Limits(), "if it were not empty"),
    ],
)
def test_manifests_that_ask_for_too_much(
    shapes: list[tuple[int, ...]], limits: Limits, message: str
) -> None:
    manifest = Manifest(tuple(TensorSpec(f"t{i}", shape) for i, shape in enumerate(shapes)))
    with pytest.raises(LimitError, match=message):
        manifest.check_limits(limits)
    Manifest((TensorSpec("t", (0, 4)), TensorSpec("u", (2, 2)))).check_limits()


def test_a_plan_for_another_model() -> None:
    manifest = Manifest((TensorSpec("a", (2,)),))
    with pytest.raises(ConfigError, match="the plan is for 0 tensors and the model has 1"):
        encode_frames(manifest, Plan(()), {"a": np.zeros(2)}, None)


def test_codecs_have_no_state() -> None:
    codec = Pipeline([TopK(0.2), Half()], "rans")
    before = [dict(vars(stage)) for stage in codec.stages]
    x = np.random.default_rng(0).standard_normal(50).astype(np.float32)
    spec = TensorSpec("w", (50,))
    copy = x.copy()
    assert codec.encode(x, spec, Context()) == codec.encode(x, spec, Context())
    assert before == [vars(stage) for stage in codec.stages]
    np.testing.assert_array_equal(x, copy)
    out = Writer()
    codec.write_recipe(out)
    assert len(out) == 4
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.name = "v"  # type: ignore[misc]
    assert issubclass(EncodeError, FlowerpressError)
