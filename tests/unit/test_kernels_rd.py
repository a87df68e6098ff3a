"""The kernels of the rate-distortion codec against plain Python that does the same, slowly."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from flowerpress.compression.errors import FormatError, WireError
from flowerpress.compression.kernels.compose import compose, compose_into
from flowerpress.compression.kernels.cosine import mix
from flowerpress.compression.kernels.exact import orthonormalize, outer_product
from flowerpress.compression.kernels.levels import CONTEXTS, SCALES, TRELLIS, refresh
from flowerpress.compression.kernels.trellis import (
    offsets,
    search,
    to_points,
    to_quantizers,
)
from flowerpress.compression.rd.averages import follow, scales
from flowerpress.compression.rd.body import Body
from flowerpress.compression.rd.contexts import expected
from flowerpress.compression.rd.quantize import points_of, quantize
from flowerpress.compression.rd.stream import Kind, Plane, decode, encode
from flowerpress.compression.rd.views import (
    KERNEL,
    PLACES,
    matrix,
    matrix_shape,
    possible,
    tensor,
    views,
)
from flowerpress.compression.wire import Reader

QUICK = settings(deadline=None, max_examples=80)
SEEDS = st.integers(0, 2**32)


def normal(shape: tuple[int, ...], seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


# --- the trellis ------------------------------------------------------------------------------


def path(levels: NDArray[Any]) -> tuple[list[int], list[int]]:
    """The points and the quantizers of one row of levels."""
    state, points, quantizers = 0, [], []
    for k in levels.tolist():
        q = state & 1
        points.append(int(math.copysign(2 * abs(k) - q, k)) if k else 0)
        quantizers.append(q)
        state = int(TRELLIS[2 * state + abs(k) % 2])
    return points, quantizers


def test_the_trellis_is_a_code_of_eight_states() -> None:
    assert sorted(TRELLIS.tolist()) == sorted(list(range(8)) * 2)
    for state in range(8):
        # Two paths that part in a state meet again after no fewer than four steps.
        apart = {(int(TRELLIS[2 * state]), int(TRELLIS[2 * state + 1]))}
        for _ in range(3):
            assert all(a != b for a, b in apart)
            apart = {
                (int(TRELLIS[2 * a + p]), int(TRELLIS[2 * b + q]))
                for a, b in apart
                for p, q in itertools.product((0, 1), repeat=2)
            }
        assert any(a == b for a, b in apart)


@given(SEEDS, st.sampled_from([0.3, 2.0, 1e6]))
@QUICK
def test_points_and_quantizers(seed: int, spread: float) -> None:
    rng = np.random.default_rng(seed)
    levels = np.rint(rng.laplace(size=rng.integers(1, 20, 2)) * spread).astype(np.int32)
    points, quantizers = np.empty_like(levels), np.empty_like(levels)
    to_points(levels, TRELLIS, points)
    to_quantizers(levels, TRELLIS, quantizers)
    for row, got, which in zip(levels, points, quantizers, strict=True):
        assert (got.tolist(), which.tolist()) == path(row)


Options = list[tuple[int, float]]


def options(value: float, q: int, costs: NDArray[np.float64]) -> Options:
    """Levels that the search looks at, with their costs: zero, and the two nearest points."""
    zero, one, more = costs[2 * q], costs[2 * q + 1], costs[4]
    size = abs(value)
    out = [(0, zero + size * size)]
    below = math.floor(size + q / 2)
    for level in (below, below + 1):
        if level:
            beyond = size - (level - q / 2)
            out.append((level, beyond * beyond + one + more * (level - 1)))
    return out


def cost(row: NDArray[Any], levels: NDArray[Any], costs: NDArray[np.float64]) -> float:
    """The cost of one row of levels; ``costs`` (columns, 5)."""
    _, quantizers = path(levels)
    total = 0.0
    for value, k, q, each in zip(row.tolist(), levels.tolist(), quantizers, costs, strict=True):
        assert k == 0 or (k < 0) == (value < 0)
        total += dict(options(value, q, each))[abs(k)]
    return total


def cheapest(row: NDArray[Any], costs: NDArray[np.float64]) -> float:
    """The least cost over all paths, by trying every one of them."""

    def after(state: int, at: int) -> float:
        if at == row.size:
            return 0.0
        return min(
            price + after(int(TRELLIS[2 * state + level % 2]), at + 1)
            for level, price in options(float(row[at]), state & 1, costs[at])
        )

    return after(0, 0)


@given(SEEDS, st.sampled_from([0.4, 1.5, 20.0]))
@QUICK
def test_the_search_finds_the_cheapest_of_all_paths(seed: int, spread: float) -> None:
    rng = np.random.default_rng(seed)
    m, n = rng.integers(1, 20), rng.integers(1, 7)
    x = (rng.laplace(size=(m, n)) * spread).astype(np.float32)
    rows = np.full(m, rng.integers(0, 12))
    columns = rng.integers(0, 12, n)
    table = rng.random((64, 5)) * [0.2, 0.8, 0.2, 0.8, 0.3]
    levels = np.zeros((m, n), np.int32)
    order = rng.permutation(m)
    search(x, order, rows, columns, table.astype(np.float32), levels)
    costs = table[(rows[0] + columns + 1) >> 1]
    for row, found in zip(x, levels, strict=True):
        assert cost(row, found, costs) == pytest.approx(cheapest(row, costs), rel=1e-4, abs=1e-5)


def test_long_rows_are_searched_as_well_as_short_ones() -> None:
    """Path costs are kept small, so that thousands of columns do not round them away."""
    n = 3000
    x = normal((1, n)) * np.float32(2)
    table = np.full((64, 5), 0.1)
    levels = np.zeros((1, n), np.int32)
    search(
        x,
        np.zeros(1, np.int64),
        np.zeros(1, np.int64),
        np.zeros(n, np.int64),
        table.astype(np.float32),
        levels,
    )
    # The Viterbi algorithm in double precision.
    best = [0.0] + [math.inf] * 7
    for value in x[0].tolist():
        after = [math.inf] * 8
        for state, before in enumerate(best):
            for level, price in options(value, state & 1, table[0]) if before < math.inf else ():
                to = int(TRELLIS[2 * state + level % 2])
                after[to] = min(after[to], before + price)
        best = after
    assert cost(x[0], levels[0], table[np.zeros(n, int)]) == pytest.approx(min(best), rel=1e-5)


def test_trellis_coding_is_worth_a_decibel() -> None:
    x = np.random.default_rng(0).uniform(-200, 200, (64, 500)).astype(np.float32)
    error = points_of(quantize(x)) / 2 - x
    # Half a step to either side would give 1/12; 8 states gain 0.9 dB of the 1.53 there are.
    assert 0.062 < float((error.astype(np.float64) ** 2).mean()) < 0.069


def test_offsets() -> None:
    x = normal((9, 40), 3) * np.float32(2)
    levels = quantize(x)
    sums, squares = np.zeros((6, 2)), np.zeros(2)
    offsets(x, levels, TRELLIS, sums, squares)
    points = points_of(levels)
    wide = x.astype(np.float64)
    beyond = np.sign(points) * wide - np.abs(points) / 2
    for p in range(1, 6):
        some = np.abs(points) == p if p < 5 else np.abs(points) > 4
        assert sums[p].tolist() == pytest.approx([some.sum(), beyond[some].sum()])
    assert squares.tolist() == pytest.approx([((wide - points / 2) ** 2).sum(), (wide**2).sum()])


# --- planes and their stream -------------------------------------------------------------------


@given(SEEDS, st.booleans())
@QUICK
def test_planes_come_back(seed: int, signs: bool) -> None:
    """What is coded is what a decoder gets: tests/wire has a decoder that is not ours."""
    rng = np.random.default_rng(seed)
    planes = []
    for _ in range(rng.integers(1, 5)):
        size = rng.integers(0, 30), rng.integers(1, 30)
        spread = rng.choice([0, 0.05, 1, 30, 1e4, 2e8])
        levels = np.clip(rng.laplace(size=size) * spread, 1 - 2**30, 2**30 - 1).astype(np.int32)
        kind = Kind.REST if rng.random() < 0.5 else Kind.FACTOR
        planes.append(Plane(kind, levels, int(rng.integers(0, 30) * (rng.random() < 0.5))))
    lanes, coded, bits = encode(planes, signs=signs)
    assert len(coded) <= sum(bits) / 8 * 1.05 + 8 * 6 + 4
    out = [Plane(p.kind, np.full(p.values.shape, 99, np.int32), p.low) for p in planes]
    decode(Reader(memoryview(coded), "planes"), lanes, out, signs=signs)
    for got, want in zip(out, planes, strict=True):
        np.testing.assert_array_equal(got.values, points_of(want.values))
    # (A word more may be another message: that of a single lane has no other end.)
    for cut in (coded[:-1], coded + b"\0"):
        with pytest.raises(WireError):
            decode(Reader(memoryview(cut), "planes"), lanes, out, signs=signs)


def test_magnitudes_that_no_encoder_writes_are_refused() -> None:
    """A level of 2**30 would not fit a point: what an encoder could write but must not."""
    levels = np.full((1, 1), 2**30, np.int32)
    lanes, coded, _ = encode([Plane(Kind.REST, levels, 0)], signs=False)
    out = [Plane(Kind.REST, np.zeros((1, 1), np.int32), 0)]
    with pytest.raises(FormatError, match="magnitude"):
        decode(Reader(memoryview(coded), "planes"), lanes, out, signs=False)


def test_adaptive_contexts_are_near_what_knowing_every_row_would_give() -> None:
    rng = np.random.default_rng(0)
    # Rows of very different sizes, which is what the averages are for.
    spread = np.exp(rng.standard_normal((200, 1)) * 0.8)
    levels = np.rint(rng.laplace(size=(200, 300)) * spread).astype(np.int32)
    _, coded, bits = encode([Plane(Kind.REST, levels, 0)], signs=False)
    ideal = 0.0
    for row, scale in zip(levels, spread[:, 0], strict=True):
        inside = 1 - np.exp(-0.5 / scale)
        size = np.abs(row)
        beyond = -np.log2(0.5) - np.log2(
            np.exp(-(size - 0.5) / scale) - np.exp(-(size + 0.5) / scale)
        )
        ideal += float(np.where(size == 0, -np.log2(inside), beyond).sum())
    assert len(coded) == pytest.approx(bits[0] / 8, rel=0.03)
    assert 1.0 <= 8 * len(coded) / ideal < 1.08


def test_frequencies() -> None:
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 9000, CONTEXTS * 16).astype(np.uint32)
    counts[:160] = 1
    counts[160:176] = 20000
    before = counts.reshape(-1, 16).copy()
    first, totals = np.zeros(CONTEXTS * 32, np.uint16), np.zeros(CONTEXTS, np.int64)
    refresh(counts, first, totals)
    for row, (old, slots) in enumerate(zip(before, first.reshape(-1, 32), strict=True)):
        own = [int(c) for c in old]
        if sum(own) > 1 << 17:
            own = [(c + 1) // 2 for c in own]
        assert counts[16 * row : 16 * row + 16].tolist() == own
        f = [1 + 32752 * c // sum(own) for c in own]
        f[own.index(max(own))] += 32768 - sum(f)
        assert np.diff(slots[:17].astype(int)).tolist() == f
        assert slots[0] == 0
        assert slots[16] == 32768


def test_tables() -> None:
    assert follow().size == 4 * 256 * 8
    moved = follow().reshape(4, 256, 8)
    for rate, magnitude in itertools.product(range(4), range(8)):
        steps = moved[rate, :239, magnitude].astype(int)
        assert (np.diff(steps) >= 0).all()  # a larger average stays the larger one
        assert steps.max() <= 238
    assert moved[0, 0, 1] == 1 + 20 * 8  # half of one
    for weight in (8, 12):
        table = scales(weight).reshape(64, 64).astype(int)
        assert table.max() < SCALES
        assert (np.diff(table, axis=0) >= 0).all()
        assert (np.diff(table, axis=1) >= 0).all()
        assert table[0, 0] < table[-1, -1]
    counts = expected().reshape(2, SCALES, 3, 16)
    assert counts.min() >= 1
    assert (np.abs(counts.sum(axis=-1).astype(int) - 320) <= 24).all()


# --- values -----------------------------------------------------------------------------------


@given(SEEDS)
@QUICK
def test_composing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    m, n, r = (int(v) for v in rng.integers(1, 12, 3))
    r = 0 if rng.random() < 0.2 else r
    left, right = normal((r, m), seed), normal((r, n), seed + 1)
    points = rng.integers(-7, 8, (m if rng.random() < 0.8 else 0, n)).astype(np.int32)
    shifts = np.array([0, *rng.integers(-8, 8, 4) / 32, 0], np.float32)
    step = np.float32(rng.random() + 0.1)
    want = np.zeros((m, n), np.float32)
    for a, b in zip(left, right, strict=True):
        want += a[:, None] * b
    if len(points):
        shift = np.sign(points).astype(np.float32) * shifts[np.minimum(np.abs(points), 5)]
        want += points.astype(np.float32) * np.float32(0.5) + shift
    want *= step
    out = np.empty((m, n), np.float32)
    compose(left, right, points, shifts, step, out)
    assert out.tobytes() == want.tobytes()
    for dtype in (np.float32, np.float64):
        total: NDArray[Any] = rng.standard_normal((m, n)).astype(dtype)
        wide: NDArray[Any] = want.astype(dtype)
        sums = total + wide * dtype(0.3)
        compose_into(left, right, points, shifts, step, np.float64(0.3), total)
        assert total.tobytes() == sums.tobytes()


@given(SEEDS)
@QUICK
def test_products_and_mixes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    k, m, n = int(rng.integers(1, 17)), int(rng.integers(0, 30)), int(rng.choice([1, 7, 255, 600]))
    weights, x = normal((k, m), seed), normal((m, n), seed + 1)
    want = np.zeros((k, n), np.float32)
    for i in range(m):
        want += weights[:, i : i + 1] * x[i]
    out = np.empty((k, n), np.float32)
    outer_product(weights, x, out)
    assert out.tobytes() == want.tobytes()

    blocks, size = int(rng.integers(1, 4)), int(rng.integers(1, 12))
    small, y = normal((size, size), seed + 2), normal((blocks, size, 9), seed + 3)
    mixed = small[:, :1] * y[:, :1]
    for j in range(1, size):
        mixed = mixed + small[:, j : j + 1] * y[:, j : j + 1]
    got = np.empty_like(y)
    mix(y, small, got)
    assert got.tobytes() == mixed.tobytes()


def slowly_orthonormal(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    done: list[list[float]] = []
    for row in rows.astype(np.float64).tolist():
        y = row
        before = after = 0.0
        for v in y:
            before += v * v
        for _ in range(2):
            for u in done:
                dot = 0.0
                for a, b in zip(y, u, strict=True):
                    dot += a * b
                y = [a - dot * b for a, b in zip(y, u, strict=True)]
        for v in y:
            after += v * v
        scale = 1 / math.sqrt(after) if after > before * 1e-10 and after > 0 else 0.0
        done.append([float(np.float32(v * scale)) for v in y])
    return np.array(done, np.float32)


@given(SEEDS)
@QUICK
def test_orthonormal_rows(seed: int) -> None:
    rng = np.random.default_rng(seed)
    k, n = int(rng.integers(1, 9)), int(rng.integers(1, 40))
    rows = normal((k, n), seed) * np.float32(10.0 ** rng.integers(-20, 18))
    if k > 2:
        rows[2] = rows[0] + rows[1]
        rows[k - 1] *= rng.integers(0, 2)
    want = slowly_orthonormal(rows)
    orthonormalize(rows)
    assert rows.tobytes() == want.tobytes()
    alive = rows[(rows != 0).any(axis=1)]
    np.testing.assert_allclose(alive @ alive.T, np.eye(len(alive)), atol=1e-5)
    assert len(alive) <= min(k, n)


# --- views ------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 13), max_size=5), SEEDS)
@QUICK
def test_views_are_undone(shape: list[int], seed: int) -> None:
    x = normal(tuple(shape), seed)
    assert set(views(x.shape)) <= possible(x.shape)
    for view in possible(x.shape):
        seen = matrix(x, view)
        assert seen.shape == matrix_shape(x.shape, view)
        assert seen.flags.c_contiguous
        back = tensor(seen, x.shape, view)
        if view == KERNEL:
            np.testing.assert_allclose(back, x.reshape(-1), atol=2e-5)
            # Squared errors stay what they are.
            assert float((seen**2).sum()) == pytest.approx(float((x**2).sum()), rel=1e-4)
        else:
            np.testing.assert_array_equal(back, x.reshape(-1))


def test_a_view_of_places() -> None:
    x = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    seen = matrix(x, PLACES)
    for o, c, a, b in np.ndindex(*x.shape):
        assert seen[(a * 5 + b) * 2 + o, c] == x[o, c, a, b]
    constant = np.ones((2, 8, 3, 3), np.float32)
    # All of a constant kernel is in its first frequency.
    seen = matrix(constant, KERNEL)
    np.testing.assert_allclose(seen[:2], 3, rtol=1e-5)
    np.testing.assert_allclose(seen[2:], 0, atol=1e-5)


# --- heads ------------------------------------------------------------------------------------


@given(st.binary(min_size=2, max_size=40), st.sampled_from([(5,), (30, 40), (4, 9, 3, 3), (1, 1)]))
@settings(deadline=None, max_examples=300)
def test_what_is_read_is_what_would_be_written(data: bytes, shape: tuple[int, ...]) -> None:
    """One body has one spelling, but for positions, of which several modes are allowed."""
    reader = Reader(memoryview(data), "body")
    try:
        head = Body.read(reader, shape)
    except WireError:
        return
    rest = bytes(reader.rest())
    if head.rows is None and head.columns is None and any(head.low) == bool(data[1] & 8):
        assert head.write(shape, rest) == data
    else:
        again = Body.read(Reader(memoryview(head.write(shape, rest)), "body"), shape)
        assert again.exponents == head.exponents
        assert again.shifts == head.shifts
