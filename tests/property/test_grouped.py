"""Groups of rows: each block as its own codec codes it, and nothing that a recipe must not say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from flowerpress.compression import (
    CODECS,
    Coded,
    ConfigError,
    Context,
    EncodeError,
    FormatError,
    Grouped,
    LimitError,
    TensorSpec,
    WireError,
    Writer,
    preset,
    read_recipe,
    recipe,
)
from flowerpress.compression.decoded import Sparse
from flowerpress.compression.grouped import MOST_GROUPS, Blocks, rows_of

QUICK = settings(deadline=None, max_examples=100)
TEXTS = ("none", "fp16", "int8", "stc(density=0.2)", "rd(step=0.2)", "qsgd", "nf4", "lowrank")


def codec(text: str, *, of: TensorSpec | None = None) -> Any:
    return preset(text).codec(of or TensorSpec("probe", (20, 20)))


def tensor(shape: tuple[int, ...], dtype: str, seed: int) -> NDArray[Any]:
    rng = np.random.default_rng(seed)
    return np.asarray(rng.laplace(0, 1, shape)).astype(dtype)


@QUICK
@given(
    st.lists(st.integers(0, 7), max_size=4).map(tuple),
    st.sampled_from(["float32", "float16", "float64"]),
    st.lists(st.sampled_from(TEXTS), min_size=1, max_size=6),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_blocks_are_what_their_codecs_make_of_them(
    shape: tuple[int, ...], dtype: str, texts: list[str], shared: bool, seed: int
) -> None:
    spec, x = TensorSpec("w", shape, dtype), tensor(shape, dtype, seed)
    reference = tensor(shape, dtype, seed + 1) / 8 + x if shared else None
    rows = np.atleast_1d(x)
    cuts = rows_of(spec, len(texts))
    assert [b for _, b in cuts[:-1]] == [a for a, _ in cuts[1:]]
    assert (cuts[0][0], cuts[-1][1]) == (0, len(rows))
    extents = [b - a for a, b in cuts]
    assert max(extents) - min(extents) <= 1
    blocks = [TensorSpec("w", (n, *shape[1:]), dtype) for n in extents]
    own = Grouped([codec(t, of=block) for t, block in zip(texts, blocks, strict=True)])
    assert own.lossless == all(c.lossless for c in own.codecs)
    assert own.biased == any(c.biased for c in own.codecs)

    body = own.encode(x, spec, Context(np.random.default_rng(seed), reference))
    assert recipe(read_recipe(memoryview(recipe(own)), CODECS)) == recipe(own)
    got = own.decode(memoryview(body), spec, reference)
    assert isinstance(got, Blocks)
    rng = np.random.default_rng(seed)
    expected, coded = [], []
    for one, block, (a, b) in zip(own.codecs, blocks, cuts, strict=True):
        held = None if reference is None else np.atleast_1d(reference)[a:b]
        coded.append(Coded(one, one.encode(rows[a:b], block, Context(rng, held))))
        expected.append(one.decode(memoryview(coded[-1].body), block, held).dense())
    flat = np.concatenate(expected)
    np.testing.assert_array_equal(got.dense(), flat)
    assert got.is_finite()
    joined = Grouped.join(coded)
    assert (joined.body, recipe(joined.codec)) == (body, recipe(own))
    total = np.full(spec.size, 2.0)
    got.add_to(total, -0.5)
    np.testing.assert_allclose(total, 2.0 - 0.5 * flat.astype(np.float64), rtol=1e-6, atol=1e-6)
    if own.lossless:
        assert flat.astype(x.dtype).tobytes() == np.ascontiguousarray(x).tobytes()


def test_sparse_blocks_stay_sparse() -> None:
    own = Grouped([codec("stc(density=0.01)"), codec("int8")])
    x = tensor((100, 50), "float32", 0)
    spec = TensorSpec("w", x.shape)
    got = own.decode(memoryview(own.encode(x, spec, Context())), spec)
    assert isinstance(got.parts[0], Sparse)
    assert got.parts[0].positions.size == 25


def test_relevance_is_cut_as_the_tensor_is() -> None:
    own = Grouped([codec("topk(density=0.05)")] * 2)
    x, spec = np.ones((4, 10), np.float32), TensorSpec("w", (4, 10))
    relevance = np.zeros((4, 10))
    relevance[1, 7] = relevance[2, 3] = 1.0
    got = own.decode(memoryview(own.encode(x, spec, Context(relevance=relevance))), spec).dense()
    assert np.flatnonzero(got).tolist() == [17, 23]


def test_equal_neighbours_are_named_once() -> None:
    one, many = Grouped([codec("int8")]), Grouped([codec("int8")] * MOST_GROUPS)
    assert len(recipe(many)) == len(recipe(one)) + MOST_GROUPS
    assert many.describe() == "rows: 256 x int8 > rans"
    mixed = Grouped([codec("int8"), codec("fp16"), codec("fp16")])
    assert mixed.describe() == "rows: int8 > rans | 2 x fp16 > raw"


def test_what_cannot_be_grouped() -> None:
    for codecs in ([], [codec("int8")] * (MOST_GROUPS + 1)):
        with pytest.raises(ConfigError, match="1 to 256"):
            Grouped(codecs)
    with pytest.raises(ConfigError, match="hold groups"):
        Grouped([codec("int8"), Grouped([codec("int8")])])
    with pytest.raises(ConfigError, match="use fewer groups"):
        Grouped([codec(f"rd(step={i + 1})") for i in range(100)])
    with pytest.raises(EncodeError, match="shape"):
        Grouped([codec("int8")]).encode(np.ones(3), TensorSpec("w", (4,)), Context())


def named(count: int, *recipes: bytes) -> memoryview:
    out = Writer()
    out.varint(Grouped.tag)
    out.varint(count)
    for each in recipes:
        out.blob(each)
    return memoryview(out.getvalue())


INT8 = recipe(codec("int8"))


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        (named(0), LimitError, "0 groups"),
        (named(MOST_GROUPS + 1, INT8), LimitError, "257 groups"),
        (named(1 << 62), LimitError, "groups"),
        (named(1, b""), FormatError, "first group"),
        (named(2, INT8, INT8), FormatError, "repeats"),
        (named(3, INT8, b"", INT8), FormatError, "repeats"),
        (named(2, INT8), WireError, "recipe"),
        (named(1, INT8, b""), FormatError, "left over"),
        (named(1, INT8 + b"\0"), FormatError, "left over"),
        (named(1, bytes(named(1, INT8))), FormatError, "unknown codec tag 5"),
        (named(100, *(recipe(codec(f"rd(step={i + 1})")) for i in range(100))), FormatError, "480"),
    ],
)
def test_recipes_that_nobody_writes(name: memoryview, kind: type, message: str) -> None:
    with pytest.raises(kind, match=message):
        read_recipe(name, CODECS)


def test_bodies_that_nobody_writes() -> None:
    own, spec = Grouped([codec("fp16")] * 2), TensorSpec("w", (2, 2))
    body = own.encode(np.ones((2, 2), np.float32), spec, Context())
    assert len(body) == 1 + 4 + 4
    for bad in (body[:-1], body + b"\0", body[1:], b"\xff" * 9, b"", b"\x09" + body[1:]):
        with pytest.raises(WireError, match=r"raw body|frame"):
            own.decode(memoryview(bad), spec)
