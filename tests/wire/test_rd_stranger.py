"""Rate-distortion bodies decode to the same bits by the page alone as by the codec."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from flowerpress.compression import Context, TensorSpec, recipe
from flowerpress.compression.rd.basis import Reference
from flowerpress.compression.rd.body import Body
from flowerpress.compression.rd.codec import RateDistortion
from flowerpress.compression.rd.stream import Kind, Plane, encode
from flowerpress.compression.rd.views import FLAT, KERNEL, PLACES, TURNED, matrix_shape, possible
from flowerpress.compression.wire import Reader

Array = NDArray[np.float32]
RNG = np.random.default_rng(20)


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


STRANGER = _load(Path(__file__).parent / "stranger.py")


def same(body: bytes, shape: tuple[int, ...], step: float, reference: Array | None = None) -> Array:
    """Return what both decoders make of a body, having compared every bit."""
    codec = RateDistortion(step)
    spec = TensorSpec("w", shape)
    ours = codec.decode(memoryview(body), spec, reference).dense()
    theirs = STRANGER.frame(STRANGER.Bytes(body), recipe(codec), shape, "float32", reference)
    assert theirs.dtype == ours.dtype
    assert theirs.tobytes() == ours.tobytes()
    return ours


def coded(x: Array, step: float, reference: Array | None = None) -> Body:
    """Encode, compare the decoders, and return what stands at the head of the body."""
    body = RateDistortion(step).encode(x, TensorSpec("w", x.shape), Context(reference=reference))
    assert np.isfinite(same(body, x.shape, step, reference)).all()
    return Body.read(Reader(memoryview(body), "body"), x.shape)


def noise(*shape: int) -> Array:
    return RNG.laplace(size=shape).astype(np.float32)


def thin(m: int, n: int) -> Array:
    """A matrix of rank 4."""
    falling = RNG.standard_normal((m, 4)) * 0.6 ** np.arange(4)
    return np.asarray(3 * falling @ RNG.standard_normal((4, n)), np.float32)


# --- what the encoder makes of tensors ---------------------------------------------------------


def test_a_matrix_at_all_rates() -> None:
    x = noise(40, 50)
    seen = [coded(x, step) for step in (4.0, 1.0, 0.1, 1e-3, 1e-5)]
    assert [head.lanes for head in seen][::4] == [0, 3]
    assert sorted(head.low[-1] for head in seen) == [head.low[-1] for head in seen]
    assert seen[-1].low[-1] > 10
    assert all(head.view == FLAT for head in seen)


def test_convolutions() -> None:
    thick = thin(25 * 12, 12)
    five = np.ascontiguousarray(thick.reshape(5, 5, 12, 12).transpose(2, 3, 0, 1))
    three = np.ascontiguousarray(five[:, :, :3, :3])
    for x in (three, five, five[:, :, :2], five[:, :, :1]):
        head = coded(np.ascontiguousarray(x), 0.7)
        assert head.view == KERNEL
        assert head.exponents
    wide = np.ascontiguousarray(np.repeat(five, 3, axis=3)[:4])
    assert coded(wide, 1.0).view in (PLACES, FLAT)  # a kernel of more than eleven places
    assert coded(noise(16, 3, 3, 3), 1.0).view == FLAT  # three channels make no matrix


def test_vectors() -> None:
    for size in (1, 2, 500, 16383, 16384, 16400, 16401):
        head = coded(noise(size), 1.5 if size > 2 else 0.1)
        assert head.view == FLAT
    coded(np.array(-3.0, np.float32), 0.5)


def test_tall_and_narrow() -> None:
    assert coded(noise(300, 3), 1.0).view == TURNED
    assert coded(noise(300, 1), 1.0).view == TURNED


def test_dead_rows_and_columns() -> None:
    x = noise(100, 16)
    x[RNG.random(100) < 0.6] = 0
    head = coded(x, 1.0)
    assert head.rows is not None
    assert head.columns is None
    x[:, 3:8] = 0
    head = coded(x, 0.7)
    assert head.rows is not None
    assert head.columns is not None


def test_with_a_reference() -> None:
    x = thin(60, 70)
    near = (x + noise(60, 70) / 4).astype(np.float32)
    head = coded(x, 1.0, near)
    assert head.left_basis
    assert head.right_basis
    kernel = np.ascontiguousarray(thin(9 * 16, 16).reshape(3, 3, 16, 16).transpose(2, 3, 0, 1))
    head = coded(kernel, 1.0, (kernel + noise(16, 16, 3, 3) / 8).astype(np.float32))
    assert head.view == KERNEL
    assert head.left_basis or head.right_basis
    x[::3] = 0
    head = coded(x, 1.0, near)
    assert head.rows is not None
    assert head.reference == Reference(near).digest[:4]


def test_huge_values_have_a_step_of_their_own() -> None:
    head = coded(noise(30, 20) * np.float32(1e25), 1e-20)
    assert head.step is not None
    assert head.step > 1e15


def test_many_levels() -> None:
    """Frequencies that are made anew after so many levels, and counts that were halved."""
    assert coded(noise(320, 256), 2.5).lanes == 3
    assert coded(noise(320, 256), 1.0).lanes == 3


# --- what the format allows --------------------------------------------------------------------


@st.composite
def bodies(draw: st.DrawFn) -> tuple[bytes, tuple[int, ...], Array | None]:
    """Bodies with anything in their planes, whether or not an encoder would want it."""
    shape = draw(
        st.sampled_from([(1,), (), (17,), (9, 14), (20, 3), (1, 30), (6, 4, 3), (5, 8, 2, 3)])
    )
    view = draw(st.sampled_from(sorted(possible(shape))))
    m, n = matrix_shape(shape, view)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))

    def some(size: int) -> NDArray[np.int64] | None:
        if size < 2 or draw(st.booleans()):
            return None
        return np.sort(rng.choice(size, rng.integers(1, size), replace=False))

    rows, columns = some(m), some(n)
    m, n = m if rows is None else rows.size, n if columns is None else columns.size
    has_factors = draw(st.booleans())
    has_rest = not has_factors or draw(st.booleans())
    rank = draw(st.integers(1, min(m, n))) if has_factors else 0
    reference, left, right, vectors = None, False, False, min(16, m, n)
    if has_factors and vectors > 1 and draw(st.booleans()):
        reference = rng.standard_normal(shape).astype(np.float32)
        left, right = draw(st.sampled_from([(True, False), (False, True), (True, True)]))
    planes: list[Plane] = []
    sizes = [(rank, vectors)] * left + [(rank, m)] * has_factors
    sizes += [(rank, vectors)] * right + [(rank, n)] * has_factors
    for kind, size in [(Kind.FACTOR, s) for s in sizes] + [(Kind.REST, (m, n))] * has_rest:
        spread = draw(st.sampled_from([0.0, 0.1, 1.0, 5.0, 100.0, 1e6]))
        levels = np.rint(rng.laplace(size=size) * spread).astype(np.int32)
        planes.append(Plane(kind, levels, draw(st.sampled_from([0, 0, 1, 5, 16, 29]))))
    if draw(st.booleans()):
        extreme = planes[-1].values
        extreme[rng.integers(len(extreme)), rng.integers(extreme.shape[1])] = -(2**30) + 1
    signs = draw(st.booleans())
    lanes, stream, _ = encode(planes, signs=signs)
    exponents = np.cumsum([rng.integers(200, 256), *-rng.integers(0, 16, rank)])[:rank]
    body = Body(
        view=view,
        step=draw(st.sampled_from([None, 0.375, 1e-30, 1e10])),
        rows=rows,
        columns=columns,
        exponents=[max(0, int(e)) for e in exponents],
        reference=None if reference is None else Reference(reference).digest[:4],
        left_basis=left,
        right_basis=right,
        shifts=rng.integers(-8, 8, 4).tolist() if has_rest else None,
        signs=signs,
        lanes=lanes,
        low=[p.low for p in planes],
    )
    return body.write(shape, stream), shape, reference


@given(bodies())
@settings(deadline=None, max_examples=250)
def test_whatever_the_format_allows(case: tuple[bytes, tuple[int, ...], Array | None]) -> None:
    body, shape, reference = case
    same(body, shape, 0.1, reference)


@pytest.mark.parametrize("low", [0, 7, 29])
def test_the_largest_magnitude(low: int) -> None:
    levels = np.array([[2**30 - 1, -(2**30) + 1, 0, 1, 2**29, -(2**16)]], np.int32)
    lanes, stream, _ = encode([Plane(Kind.REST, levels, low)], signs=True)
    head = Body(FLAT, None, None, None, [], None, False, False, [0] * 4, True, lanes, [low])
    got = same(head.write((6,), stream), (6,), 1.0)
    assert got.tolist()[:2] == [2.0**30, -(2.0**30)]
    assert replace(head, signs=False).write((6,), stream) != head.write((6,), stream)


def test_empty_bodies() -> None:
    shapes: list[tuple[Any, ...]] = [(4, 5), (), (0, 3)]
    for shape in shapes:
        assert not same(b"", shape, 1.0).any()
