"""Every coder gives back what it was given, and nothing but typed errors for anything else."""

from __future__ import annotations

import tracemalloc
from typing import Any, ClassVar

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from flowerpress.compression.coders.base import Coder, Symbols, symbol_dtype
from flowerpress.compression.coders.huffman import code_lengths
from flowerpress.compression.coders.registry import REGISTRY, coder, coder_named, registered
from flowerpress.compression.coders.split import candidates, split_from_wire
from flowerpress.compression.entropy import entropy
from flowerpress.compression.errors import (
    FormatError,
    TruncatedError,
    UnknownNameError,
    WireError,
)

QUICK = settings(deadline=None, max_examples=60)
CODERS = list(REGISTRY.values())
ALPHABETS = [1, 2, 3, 16, 255, 256, 257, 1000, 1024, 1025, 65536, 65537, 2**31, 2**32]

SMALL_ALPHABETS_ONLY = {"background": 256}

every_coder = pytest.mark.parametrize("each", CODERS, ids=[each.name for each in CODERS])


def source(kind: str, count: int, alphabet: int, seed: int) -> NDArray[np.int64]:
    """Symbols as they come up: noise, peaks in the middle or at zero, powers of two, constants."""
    rng = np.random.default_rng(seed)
    if kind == "constant":
        return np.full(count, int(rng.integers(0, alphabet)), dtype=np.int64)
    if kind == "uniform":
        uniform: NDArray[np.int64] = rng.integers(0, alphabet, count, dtype=np.int64)
        return uniform
    if kind == "laplace":
        drawn = np.rint(rng.laplace(0, max(0.3, alphabet**0.4), count)) + alphabet // 2
    elif kind == "gaps":
        drawn = rng.geometric(min(1.0, 3 / alphabet**0.5), count) - 1.0
    else:
        drawn = np.floor(2.0 ** rng.uniform(0, alphabet.bit_length(), count)) - 1
    clipped: NDArray[np.int64] = np.clip(drawn, 0, alphabet - 1).astype(np.int64)
    return clipped


def takes(each: Coder, alphabet: int) -> bool:
    return alphabet <= SMALL_ALPHABETS_ONLY.get(each.name, 1 << 32)


@st.composite
def cases(draw: st.DrawFn) -> tuple[NDArray[np.int64], int]:
    alphabet = draw(st.one_of(st.sampled_from(ALPHABETS), st.integers(1, 2**32)))
    kind = draw(st.sampled_from(["constant", "uniform", "laplace", "gaps", "powers"]))
    count = draw(st.sampled_from([0, 1, 2, 7, 40, 300, 3000]))
    return source(kind, count, alphabet, draw(st.integers(0, 2**32 - 1))), alphabet


@every_coder
@QUICK
@given(case=cases())
def test_round_trip(each: Coder, case: tuple[NDArray[np.int64], int]) -> None:
    symbols, alphabet = case
    if not takes(each, alphabet):
        alphabet = 256
        symbols = symbols % 256
    body = each.encode(symbols, alphabet)
    decoded = each.decode(memoryview(body), symbols.size, alphabet)
    assert decoded.dtype == symbol_dtype(alphabet)
    assert decoded.flags.writeable
    np.testing.assert_array_equal(decoded, symbols)
    for cut in {0, len(body) // 2, len(body) - 1} - {len(body), -1}:
        try:
            other = each.decode(body[:cut], symbols.size, alphabet)
        except WireError:
            continue
        # A single rANS lane starts from zero: two bytes less, and no way to tell that its end is
        # missing. The envelope's checksum can.
        assert each.name == "rans"
        assert body[0] >> 2 & 7 == 0
        assert other.size == symbols.size
    with pytest.raises(WireError):
        each.decode(body + b"\0", symbols.size, alphabet)


@every_coder
@QUICK
@given(values=st.lists(st.integers(0, 239), max_size=40))
def test_round_trip_of_anything(each: Coder, values: list[int]) -> None:
    symbols = np.array(values, dtype=np.int16)
    decoded = each.decode(each.encode(symbols, 240), symbols.size, 240)
    assert decoded.tolist() == values


@every_coder
@pytest.mark.parametrize("count", [20_000, 60_001, 250_007])
def test_round_trip_with_several_lanes(each: Coder, count: int) -> None:
    symbols = source("uniform", count, 100, 5)
    np.testing.assert_array_equal(each.decode(each.encode(symbols, 100), count, 100), symbols)


@every_coder
def test_layout_does_not_matter(each: Coder) -> None:
    symbols = source("laplace", 600, 50, 1).reshape(20, 30)
    body = each.encode(symbols, 50)
    frozen = symbols.astype(np.uint8)
    frozen.flags.writeable = False
    for same in (symbols.T.copy().T, symbols.astype(">i4"), frozen, np.repeat(symbols, 2, 0)[::2]):
        assert each.encode(same, 50) == body


@every_coder
def test_wrong_symbols_are_refused(each: Coder) -> None:
    for bad in (np.array([3]), np.array([-1])):
        with pytest.raises(ValueError, match=r"symbols must lie in \[0, 3\)"):
            each.encode(bad, 3)
    with pytest.raises(ValueError, match="integers"):
        each.encode(np.zeros(3), 3)  # type: ignore[arg-type]
    for alphabet in (0, 2**32 + 1):
        with pytest.raises(ValueError, match="alphabet"):
            each.encode(np.zeros(1, dtype=np.int64), alphabet)
    with pytest.raises(ValueError, match="count"):
        each.decode(b"", -1, 3)


MUTATIONS = 2500
SEEDS = [
    ("laplace", 40, 9),
    ("laplace", 500, 256),
    ("uniform", 30, 3),
    ("powers", 200, 65536),
    ("gaps", 300, 2**31),
    ("constant", 50, 12),
    ("uniform", 9000, 200),
]


@every_coder
def test_damaged_bodies_raise_wire_errors_and_stay_small(each: Coder) -> None:
    rng = np.random.default_rng(each.tag)
    bodies = []
    for index, (kind, count, alphabet) in enumerate(SEEDS):
        if not takes(each, alphabet):
            continue
        body = each.encode(source(kind, count, alphabet, index), alphabet)
        each.decode(body, count, alphabet)
        bodies.append((body, count, alphabet))
    accepted = refused = 0
    for turn in range(MUTATIONS):
        body, count, alphabet = bodies[turn % len(bodies)]
        damaged = damage(body, rng)
        small = len(damaged) + count
        if turn % 5 == 0:
            tracemalloc.start()
        try:
            symbols = each.decode(damaged, count, alphabet)
        except WireError as error:
            refused += "body" in error.field
        else:
            accepted += 1
            check_symbols(symbols, count, alphabet)
        if turn % 5 == 0:
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            # Tables of up to 4096 slots and 1024 tokens, and a few copies of input and output.
            assert peak < 600_000 + 40 * small
    assert accepted + refused == MUTATIONS
    assert refused > MUTATIONS // 20


def damage(body: bytes, rng: np.random.Generator) -> bytes:
    """Flip bits (mostly early ones: that is where the structure is), cut, extend, or replace."""
    data = bytearray(body)
    way = rng.integers(0, 8)
    if way < 5:
        for _ in range(rng.integers(1, 4)):
            near = rng.random() < 0.7
            at = int(rng.integers(0, min(len(data), 12) if near else len(data)))
            data[at] ^= 1 << int(rng.integers(0, 8))
    elif way == 5:
        del data[int(rng.integers(0, len(data))) :]
    elif way == 6:
        data += rng.bytes(int(rng.integers(1, 9)))
    else:
        at = int(rng.integers(0, len(data)))
        data[at:] = rng.bytes(int(rng.integers(0, 40)))
    return bytes(data)


def check_symbols(symbols: Symbols, count: int, alphabet: int) -> None:
    assert symbols.shape == (count,)
    assert symbols.dtype == symbol_dtype(alphabet)
    assert int(symbols.max()) < alphabet


@every_coder
@settings(deadline=None, max_examples=150)
@given(
    body=st.binary(max_size=60),
    count=st.integers(0, 400),
    alphabet=st.sampled_from(ALPHABETS),
)
def test_garbage_raises_wire_errors(each: Coder, body: bytes, count: int, alphabet: int) -> None:
    try:
        symbols = each.decode(body, count, alphabet)
    except WireError:
        return
    assert symbols.shape == (count,)
    assert count == 0 or int(symbols.max()) < alphabet


def test_a_zstd_frame_that_declares_another_size_is_not_opened() -> None:
    bomb = zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters(
            format=zstandard.FORMAT_ZSTD1_MAGICLESS, write_content_size=True
        )
    ).compress(bytes(1 << 26))
    assert len(bomb) < 10_000
    tracemalloc.start()
    with pytest.raises(FormatError, match="declares 67108864 bytes, not 100"):
        coder_named("zstd").decode(bomb, 100, 256)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


def test_a_short_body_cannot_ask_for_much() -> None:
    """Codes of at least a bit a symbol are refused before anything of that count is allocated."""
    for name in ("raw", "pack", "zstd", "golomb", "huffman"):
        each = coder_named(name)
        body = each.encode(np.arange(64, dtype=np.int64), 64)
        tracemalloc.start()
        with pytest.raises(WireError):
            each.decode(body, 1 << 30, 64)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 1 << 20


def test_small_bodies_are_small() -> None:
    ten = np.array([0, 1, 1, 2, 1, 1, 0, 1, 2, 1])
    assert len(coder_named("pack").encode(ten, 3)) == 3
    assert len(coder_named("rans").encode(ten, 3)) == 4
    for name in ("rans", "huffman"):
        assert len(coder_named(name).encode(np.full(100_000, 7), 40)) == 2
    ternary = (np.random.default_rng(0).random(1000) * 20).astype(np.int64)
    ternary = np.where(ternary == 0, 0, np.where(ternary == 1, 2, 1))
    size = len(coder_named("rans").encode(ternary, 3))
    assert size <= entropy(ternary) * 1000 / 8 + 7


@pytest.mark.parametrize(("scale", "limit"), [(0.35, 1.004), (1.2, 1.004), (4.5, 1.006)])
def test_rans_is_close_to_the_entropy(scale: float, limit: float) -> None:
    rng = np.random.default_rng(1)
    symbols = np.clip(np.rint(rng.laplace(0, scale, 300_000)) + 64, 0, 127).astype(np.int64)
    size = 8 * len(coder_named("rans").encode(symbols, 128)) / symbols.size
    assert entropy(symbols) < size < entropy(symbols) * limit


def test_rans_takes_half_precision_patterns_and_large_counts() -> None:
    rng = np.random.default_rng(2)
    patterns = rng.standard_normal(200_000).astype(np.float16).view(np.uint16)
    assert 8 * len(coder_named("rans").encode(patterns, 1 << 16)) / 200_000 < 13.6
    counts = np.minimum(rng.geometric(1e-6, 100_000), 2**31 - 1)
    ideal = np.log2(np.e * 1e6)
    assert 8 * len(coder_named("rans").encode(counts, 1 << 31)) / 100_000 < 1.005 * ideal


def test_golomb_reaches_the_geometric_entropy() -> None:
    rng = np.random.default_rng(4)
    for p in (0.5, 0.2, 0.03, 0.001):
        gaps = rng.geometric(p, 100_000) - 1
        h = -(p * np.log2(p) + (1 - p) * np.log2(1 - p)) / p
        size = 8 * len(coder_named("golomb").encode(gaps, 1 << 31)) / gaps.size
        assert size < 1.04 * h


@settings(deadline=None, max_examples=80)
@given(
    st.lists(st.integers(0, 10**6), min_size=2, max_size=300).filter(
        lambda c: sum(map(bool, c)) > 1
    )
)
def test_huffman_lengths_form_a_complete_code(counts: list[int]) -> None:
    array = np.array(counts, dtype=np.int64)
    lengths = code_lengths(array)
    np.testing.assert_array_equal(lengths > 0, array > 0)
    assert int(lengths.max()) <= 12
    assert int((4096 >> lengths[lengths > 0]).sum()) == 4096


def test_huffman_is_optimal_where_the_optimum_is_known() -> None:
    assert code_lengths(np.array([1, 1, 2, 4, 8, 0])).tolist() == [4, 4, 3, 2, 1, 0]
    fibonacci = [1, 1]
    while len(fibonacci) < 20:
        fibonacci.append(fibonacci[-1] + fibonacci[-2])
    assert int(code_lengths(np.array(fibonacci)).max()) == 12


@pytest.mark.parametrize("alphabet", ALPHABETS[1:])
def test_splits_cover_their_alphabet(alphabet: int) -> None:
    probes = np.unique(
        np.clip([0, 1, 2, 5, alphabet // 3, alphabet // 2, alphabet - 2, alphabet - 1], 0, None)
    )
    values = probes[probes < alphabet].astype(symbol_dtype(alphabet))
    splits = candidates(alphabet)
    assert splits
    for split in splits:
        tokens = split.tokenize(values).astype(np.int64)
        assert int(tokens.max()) == split.tokens - 1 <= 1023
        low = split.bases[tokens].astype(np.int64)
        assert bool(
            ((low <= values) & (values < low + (1 << split.widths[tokens].astype(int)))).all()
        )


@pytest.mark.parametrize("code", [3, 31, 33, 34, 72, 96, 200, 255])
def test_senseless_splits_are_refused(code: int) -> None:
    with pytest.raises(FormatError, match="splits 5 symbols"):
        split_from_wire(code, 5, "body")


def test_registry() -> None:
    released = ["raw", "pack", "zstd", "rans", "huffman", "golomb", "background"]
    assert {each.tag: each.name for each in CODERS} == dict(enumerate(released, start=1))
    for each in CODERS:
        assert coder(each.tag) is each
        assert coder_named(each.name) is each
    with pytest.raises(FormatError, match="coder tag"):
        coder(99)
    with pytest.raises(UnknownNameError, match="did you mean 'huffman'"):
        coder_named("hufman")


def test_a_tag_or_name_is_given_once() -> None:
    class Other(type(coder(1))):  # type: ignore[misc]
        tag: ClassVar[int] = 7
        name: ClassVar[str] = "raw"

    other: Any = Other()
    with pytest.raises(RuntimeError, match="twice"):
        registered([coder(1), other])
    Other.tag, Other.name = 1, "other"
    with pytest.raises(RuntimeError, match="twice"):
        registered([coder(1), other])
    Other.tag = 128
    with pytest.raises(RuntimeError, match="128"):
        registered([other])


def test_errors_name_the_body() -> None:
    with pytest.raises(TruncatedError, match="rans body"):
        coder_named("rans").decode(b"", 4, 5)
    with pytest.raises(FormatError, match="golomb body: 2 bytes for symbols that need none"):
        coder_named("golomb").decode(b"ab", 0, 5)
