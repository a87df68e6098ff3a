"""The rANS kernels against a plain Python twin that follows the definition word by word."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from flowerpress.compression.coders.frequencies import Model, model_of, read_model
from flowerpress.compression.kernels import (
    STATUS_OK,
    STATUS_STATE,
    STATUS_SURPLUS,
    STATUS_TRUNCATED,
    rans,
)

LANES = (1, 2, 4, 8, 16, 32)


def twin_encode(
    symbols: list[int], frequencies: list[int], lanes: int, start: int
) -> tuple[list[int], list[int]]:
    """States and words, by the formulas: // and %, one symbol at a time, last symbol first."""
    starts = [sum(frequencies[:s]) for s in range(len(frequencies))]
    states = [start] * lanes
    words: list[int] = []
    for i in reversed(range(len(symbols))):
        f, c = frequencies[symbols[i]], starts[symbols[i]]
        x = states[i % lanes]
        if x >= f << 20:
            words.append(x % 2**16)
            x >>= 16
        states[i % lanes] = 4096 * (x // f) + x % f + c
    return states, words[::-1]


def twin_decode(
    states: list[int], words: list[int], frequencies: list[int], count: int
) -> tuple[list[int], list[int], int]:
    """Symbols, states at the end and the number of words that were read."""
    owners = [s for s, f in enumerate(frequencies) for _ in range(f)]
    starts = [sum(frequencies[:s]) for s in range(len(frequencies))]
    states = list(states)
    symbols, read = [], 0
    for i in range(count):
        x = states[i % len(states)]
        s = owners[x % 4096]
        x = frequencies[s] * (x // 4096) + x % 4096 - starts[s]
        if x < 2**16 and read < len(words):
            x = x * 2**16 + words[read]
            read += 1
        states[i % len(states)] = x
        symbols.append(s)
    return symbols, states, read


def kernel_encode(
    symbols: NDArray[np.uint8], model: Model, lanes: int, start: int
) -> tuple[NDArray[np.uint32], NDArray[np.uint16]]:
    reciprocals, packed = model.encoder_tables()
    states = np.full(lanes, start, dtype=np.uint32)
    words = np.empty(symbols.size + 1, dtype=np.uint16)
    used = rans.encode(symbols, states, reciprocals, packed, words)
    return states, words[used:].copy()


def kernel_decode(
    states: NDArray[np.uint32], words: NDArray[np.uint16], model: Model, count: int, start: int
) -> tuple[int, NDArray[np.uint8]]:
    entries, owners = model.decoder_tables(np.dtype(np.uint8))
    out = np.zeros(count, dtype=np.uint8)
    status = rans.decode(words.copy(), states.copy(), start, entries, owners, out)
    return status, out


@st.composite
def sources(draw: st.DrawFn) -> NDArray[np.uint8]:
    alphabet = draw(st.integers(1, 256))
    count = draw(st.integers(1, 400))
    skew = draw(st.floats(0.05, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    symbols: NDArray[np.uint8] = (rng.random(count) ** (1 / skew) * alphabet).astype(np.uint8)
    return symbols


@settings(deadline=None, max_examples=150)
@given(sources(), st.sampled_from(LANES), st.booleans())
def test_kernels_write_and_read_what_their_twins_do(
    symbols: NDArray[np.uint8], lanes: int, low_start: bool
) -> None:
    start = 0 if low_start and lanes == 1 else 2**16
    model = model_of(np.bincount(symbols, minlength=256))
    frequencies = model.frequencies.tolist()
    states, words = kernel_encode(symbols, model, lanes, start)
    twin_states, twin_words = twin_encode(symbols.tolist(), frequencies, lanes, start)
    assert states.tolist() == twin_states
    assert words.tolist() == twin_words
    status, out = kernel_decode(states, words, model, symbols.size, start)
    assert status == STATUS_OK
    np.testing.assert_array_equal(out, symbols)
    again, end, read = twin_decode(twin_states, twin_words, frequencies, symbols.size)
    assert (again, end, read) == (symbols.tolist(), [start] * lanes, len(twin_words))


@settings(deadline=None, max_examples=150)
@given(
    st.integers(0, 300),
    st.sampled_from(LANES),
    st.lists(st.integers(0, 2**16 - 1), max_size=200),
    st.integers(0, 2**32 - 1),
)
def test_garbage_decodes_like_the_twin_and_is_refused(
    count: int, lanes: int, garbage: list[int], seed: int
) -> None:
    model = model_of(np.array([900, 40, 3, 1, 0, 7], dtype=np.int64))
    frequencies = model.frequencies.tolist()
    states = np.random.default_rng(seed).integers(0, 2**32, lanes).astype(np.uint32)
    words = np.array(garbage, dtype=np.uint16)
    status, out = kernel_decode(states, words, model, count, 2**16)
    symbols, end, read = twin_decode(states.tolist(), garbage, frequencies, count)
    assert out.tolist() == symbols
    if read < len(garbage):
        assert status == STATUS_SURPLUS
    elif end == [2**16] * lanes:
        assert status == STATUS_OK
    else:
        assert status in (STATUS_STATE, STATUS_TRUNCATED)


@pytest.mark.parametrize("lanes", LANES)
def test_a_missing_word_is_noticed(lanes: int) -> None:
    symbols = np.random.default_rng(lanes).integers(0, 17, 999).astype(np.uint8)
    model = model_of(np.bincount(symbols, minlength=256))
    states, words = kernel_encode(symbols, model, lanes, 2**16)
    assert kernel_decode(states, words[:-1], model, 999, 2**16)[0] == STATUS_TRUNCATED
    longer = np.append(words, np.uint16(1))
    assert kernel_decode(states, longer, model, 999, 2**16)[0] == STATUS_SURPLUS


@pytest.mark.parametrize("f", [1, 2, 3, 5, 2047, 2048, 2049, 4093, 4094, 4095, 4096])
def test_reciprocals_divide_exactly_at_the_edges(f: int) -> None:
    counts = np.array([f, 4096 - f], dtype=np.int64)
    model = Model(counts, 0, b"", 0.0)
    reciprocal = int(model.encoder_tables()[0][0])
    limit = f << 20
    rng = np.random.default_rng(f)
    edges = [k * f + d for k in (0, 1, 2, limit // f - 1) for d in (-1, 0, 1)]
    for x in [*edges, limit - 1, *rng.integers(0, limit, 2000).tolist()]:
        if 0 <= x < min(limit, 2**32):
            assert x * reciprocal < 2**64
            assert x * reciprocal >> 44 == x // f


@settings(deadline=None, max_examples=200)
@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=200).filter(any))
def test_normalized_frequencies_are_a_table(weights: list[int]) -> None:
    counts = np.array(weights, dtype=np.int64)
    frequencies = np.full_like(counts, -1)
    rans.normalize(counts, frequencies)
    assert frequencies.sum() == 4096
    np.testing.assert_array_equal(frequencies > 0, counts > 0)


def test_normalizing_costs_next_to_nothing() -> None:
    rng = np.random.default_rng(3)
    symbols = np.clip(np.rint(rng.laplace(0, 2, 200_000)) + 40, 0, 80).astype(np.uint8)
    counts = np.bincount(symbols)
    frequencies = np.empty_like(counts)
    rans.normalize(counts, frequencies)
    share = counts / counts.sum()
    used = share > 0
    ideal = -(share[used] @ np.log2(share[used]))
    cost = share[used] @ (12 - np.log2(frequencies[used]))
    assert ideal <= cost < ideal * 1.004


@settings(deadline=None, max_examples=60)
@given(sources())
def test_histogram_counts(symbols: NDArray[np.uint8]) -> None:
    counts = np.zeros((4, 256), dtype=np.int64)
    rans.histogram(symbols, counts)
    np.testing.assert_array_equal(counts.sum(axis=0), np.bincount(symbols, minlength=256))


@settings(deadline=None, max_examples=150)
@given(sources())
def test_both_ends_build_the_same_model(symbols: NDArray[np.uint8]) -> None:
    model = model_of(np.bincount(symbols, minlength=256))
    again, size = read_model(memoryview(model.table + b"\xff\xff"), 256, model.kept, "model")
    assert size == len(model.table)
    np.testing.assert_array_equal(again.frequencies, model.frequencies)
