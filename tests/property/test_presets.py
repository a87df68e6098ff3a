"""Presets: how they are written, what they give each tensor, and what they keep of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from flowerpress.compression import (
    PRESETS,
    ConfigError,
    Manifest,
    UnknownNameError,
    apply_frames,
    encode_frames,
    preset,
)
from flowerpress.compression.spelling import parse_call

QUICK = settings(deadline=None, max_examples=80)
SPELLINGS = [
    "none",
    "lossless",
    "lossless(coder=rans)",
    "fp16",
    "fp16(coder=rans)",
    "int8",
    "int8(coder=huffman)",
    "topk",
    "topk(density=0.2, positions=golomb, coder=raw)",
    "qsgd",
    "qsgd(levels=1, bucket=64, norm=l2)",
    "qsgd(bits=4)",
    "stc",
    "stc(density=0.3, positions=bitmap)",
    "fedzip",
    "fedzip(density=0.5, clusters=9)",
    "fedzip(encoding=gap)",
    "bf16",
    "bf16(coder=rans)",
    "fp8",
    "fp8(format=e5m2, scale=tensor, coder=raw)",
    "int8(scale=tensor)",
    "int4",
    "int4(scale=channel, coder=pack)",
    "intn",
    "intn(bits=3, scale=block, block=16)",
    "nf4",
    "nf4(block=16, coder=pack)",
    "topk(scope=global, density=0.1, values=int8)",
    "threshold",
    "threshold(at=0.1, unit=absolute, values=nf4)",
    "randomk",
    "randomk(scale=plain, values=e4m3)",
    "rowsparse",
    "rowsparse(values=int8, coder=raw)",
    "structured",
    "structured(density=0.5, values=int4)",
    "efsign",
    "compeft",
    "compeft(density=0.5, alpha=2, scope=tensor)",
    "rd",
    "rd(step=0.05)",
    "rd(relative=2)",
    "rd(max_nmse=0.01)",
    "rd(fast=true, relative=0.5)",
    "sparseloco",
    "sparseloco(k=3, chunk=16, bits=1)",
    "codebook",
    "codebook(clusters=3, group=20, coder=huffman)",
    "eden",
    "eden(bits=0.5, scale=smallest, rotations=1, coder=pack)",
    "drive",
    "powersgd",
    "powersgd(rank=1, factors=float32, coder=zstd)",
    "lowrank",
    "lowrank(bits=1, rank=1, rounds=0)",
]


@pytest.mark.parametrize(
    ("text", "name", "arguments"),
    [
        ("stc", "stc", {}),
        ("  f ( d = 0.01 , p=rans ) ", "f", {"d": "0.01", "p": "rans"}),
        ("a.b-c()", "a.b-c", {}),
        ("f(x=1,)", "f", {"x": "1"}),
    ],
)  # fmt: skip
def test_spelling(text: str, name: str, arguments: dict[str, str]) -> None:
    assert parse_call(text) == (name, arguments)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not of the form name"),
        ("stc(", "not of the form name"),
        ("stc(density=(1))", "not of the form name"),
        ("stc density", "not of the form name"),
        ("stc(0.01)", "'0.01' in .* is not of the form key=value"),
        ("stc(=1)", "is not of the form key=value"),
        ("stc(density=)", "is not of the form key=value"),
        ("stc(density=1, density=1)", "'density' is given twice"),
        ("stc(density=many)", "density of stc is 'many'; it must be a number"),
        ("stc(density=0)", "density is 0.0"),
        ("stc(density=nan)", "density is nan"),
        ("qsgd(levels=2.5)", "levels of qsgd is '2.5'; it must be an integer"),
        ("qsgd(norm=l0)", "norm is 'l0'"),
        ("fedzip(clusters=300)", "clusters is 300"),
        ("fp16(coder=background)", "background cannot follow fp16"),
        ("qsgd(levels=200, coder=background)", "background cannot follow qsgd"),
    ],
)
def test_misspelling(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        preset(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stk", r"unknown codec 'stk'; did you mean 'stc'\? \(known: .*fedzip, fp16, .*lossless, "),
        ("stc(densty=0.1)", "unknown parameter of stc 'densty'; did you mean 'density'"),
        ("none(level=3)", "unknown parameter of none 'level'"),
        ("int8(coder=lz4)", "unknown coder 'lz4'"),
        ("topk(positions=gaps)", "unknown position mode 'gaps'"),
    ],
)
def test_unknown_names(text: str, message: str) -> None:
    with pytest.raises(UnknownNameError, match=message):
        preset(text)


def test_every_preset_is_spelled_here() -> None:
    assert {parse_call(text)[0] for text in SPELLINGS} == set(PRESETS)


def test_defaults() -> None:
    manifest = Manifest.of({"w": np.zeros((64, 64), np.float32)})
    assert {
        name: preset(name).plan(manifest).codecs[0].describe() for name in PRESETS
    } == {
        "none": "exact bytes > raw",
        "rd": "rate-distortion, step 1",
        "lossless": "exact bytes by plane > zstd",
        "fp16": "fp16 > raw",
        "int8": "int8 > rans",
        "topk": "top-k 1% > fp16 > rans",
        "qsgd": "qsgd 7 levels, buckets of 512 > rans",
        "stc": "top-k 1% > ternary > pack",
        "fedzip": "prune to 20% > 3-means > background",
        "bf16": "bf16 > raw",
        "fp8": "fp8 e4m3, a scale for a channel > rans",
        "int4": "int4, a scale for 64 values > rans",
        "intn": "int6, a scale for a channel > rans",
        "nf4": "nf4, a scale for 64 values > rans",
        "threshold": "above 3 rms > fp16 > rans",
        "randomk": "random-k 5%, scaled > fp32 > rans",
        "rowsparse": "rows that are not zero > fp16 > rans",
        "structured": "largest 10% of rows > fp16 > rans",
        "efsign": "ternary > pack",
        "compeft": "top-k 5% > signs of 2.5 deviations > pack",
        "sparseloco": "top 64 of each 4096 > 4-means > rans",
        "codebook": "16-means > rans",
        "eden": "eden 2 bits > rans",
        "drive": "drive 1 bit > pack",
        "powersgd": "powersgd rank 4 in fp16 > rans",
        "lowrank": "4-means > rans + rank 4 in fp16 > rans",
    }  # fmt: skip


@pytest.mark.parametrize("text", SPELLINGS)
def test_integers_and_some_biases_are_exact(text: str) -> None:
    arrays = {"n": np.array(3), "flags": np.array([True]), "bias": np.zeros(3, np.float32)}
    plan = preset(text).plan(Manifest.of(arrays))
    assert [codec.lossless for codec in plan.codecs[:2]] == [True, True]
    name = parse_call(text)[0]
    exact = name in ("none", "lossless", "fedzip", "eden", "drive", "powersgd")
    assert plan.codecs[2].lossless == exact
    assert plan.lossless == exact


def nmse(got: NDArray[np.float64], x: NDArray[np.float64]) -> float:
    return float(((got - x) ** 2).sum() / max((x**2).sum(), 1e-300))


@QUICK
@given(
    st.sampled_from(SPELLINGS),
    st.sampled_from(["float16", "float32", "float64"]),
    st.integers(0, 2**32 - 1),
)
def test_every_preset_on_a_small_model(text: str, dtype: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    arrays = {
        "conv": rng.standard_normal((4, 3, 3, 3)).astype(dtype),
        "gamma": rng.standard_normal((4, 1, 1)).astype(dtype),
        "dense.T": np.asfortranarray(rng.laplace(0, 0.1, (5, 30)).astype(dtype)),
        "bias": rng.standard_normal(9).astype(dtype),
        "scalar": np.array(rng.standard_normal(), dtype),
        "zeros": np.zeros((2, 7), dtype),
        "none": np.zeros((0, 4), dtype),
        "count": np.array(seed),
    }
    for array in arrays.values():
        array.setflags(write=False)
    manifest = Manifest.of(arrays)
    plan = preset(text).plan(manifest)
    frames, _ = encode_frames(manifest, plan, arrays, np.random.default_rng(seed))
    out = apply_frames(manifest, {}, frames, change=False)
    manifest.match(out)
    for spec, codec in zip(manifest.specs, plan.codecs, strict=True):
        got, x = out[spec.name], arrays[spec.name]
        assert got.dtype == x.dtype
        assert np.isfinite(got).all()
        if codec.lossless:
            assert got.tobytes() == x.tobytes()
    x = arrays["conv"].astype(np.float64)
    bound = {"fp16": 1e-6, "int8": 1e-3, "qsgd": 2.0, "fedzip": 0.6}
    bound |= {"none": 0.0, "lossless": 0.0, "topk": 1.0, "stc": 1.0}
    bound |= {"bf16": 1e-5, "fp8": 0.01, "int4": 0.04, "intn": 0.2, "nf4": 0.02, "threshold": 1.0}
    bound |= {"randomk": 200.0, "rowsparse": 1e-3, "structured": 1.0, "efsign": 0.8}
    bound |= {"compeft": 1.5, "sparseloco": 1.0, "rd": 1.0}
    bound |= {"codebook": 0.3, "eden": 0.0, "drive": 0.0, "powersgd": 1.0, "lowrank": 0.7}
    assert nmse(out["conv"].astype(np.float64), x) <= bound[parse_call(text)[0]] * (
        20 if "levels=1" in text else 1
    )
    if parse_call(text)[0] != "qsgd":
        assert not out["zeros"].any()


def test_the_same_seed_gives_the_same_bytes() -> None:
    arrays = {"w": np.random.default_rng(0).standard_normal((30, 40)).astype(np.float32)}
    manifest = Manifest.of(arrays)
    for text in SPELLINGS:
        plan = preset(text).plan(manifest)
        one, two, other = (
            encode_frames(manifest, plan, arrays, np.random.default_rng(seed))[0][0].body
            for seed in (1, 1, 2)
        )
        assert one == two
        drawn = parse_call(text)[0] in ("randomk", "qsgd", "eden", "drive", "powersgd", "lowrank")
        assert (one == other) == (not drawn)
