"""What crosses a cut comes back exactly, in no more bytes than its tables promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from flowerpress.compression.errors import ConfigError, EncodeError, ManifestError
from flowerpress.compression.features import (
    PresetCodec,
    TableCodec,
    Tables,
    decode,
    encode,
    feature_codec,
)


def plain_encode(symbols: NDArray[np.int32], tables: Tables) -> bytes:
    """One lane, no escapes, with Python's own integers: what the kernel must write."""
    x = 0
    words: list[int] = []
    for c in reversed(range(tables.channels)):
        row = [int(f) for f in tables.frequencies[c]]
        for symbol in reversed(symbols[c].tolist()):
            index = symbol - int(tables.lows[c])
            f, start = row[index], sum(row[:index])
            if x >= f << 32:
                words.append(x & 0xFFFF)
                x >>= 16
            x = (x // f << 16) + x % f + start
    state = x.to_bytes(6, "little")
    if not words:
        state = state.rstrip(b"\0")
    return b"\0" + state + b"".join(w.to_bytes(2, "little") for w in reversed(words))


def drawn(seed: int, channels: int, count: int, spread: float) -> NDArray[np.int32]:
    rng = np.random.default_rng(seed)
    scale = spread * rng.uniform(0, 1, (channels, 1))
    return np.rint(rng.laplace(0, 1, (channels, count)) * scale).astype(np.int32)


def tables_of(symbols: NDArray[np.int32], version: int = 1) -> Tables:
    c = len(symbols)
    return Tables.from_symbols(version, symbols, np.zeros(c, np.float32), np.ones(c, np.float32))


def allowed(tables: Tables, symbols: NDArray[np.int32]) -> float:
    return 1.005 * tables.ideal_bits(symbols) / 8 + 8


shapes = st.tuples(st.integers(1, 9), st.integers(1, 300))
spreads = st.sampled_from([0.02, 0.3, 1.0, 20.0, 3000.0])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), shapes, spreads, spreads)
def test_symbols_return_within_the_promised_size(
    seed: int, shape: tuple[int, int], spread: float, other: float
) -> None:
    tables = tables_of(drawn(seed, *shape, spread))
    symbols = drawn(seed + 1, *shape, other)  # other symbols than the tables were made of
    body = encode(symbols, tables)
    np.testing.assert_array_equal(decode(body, tables, shape[1]), symbols)
    assert len(body) <= allowed(tables, symbols)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), shapes, st.sampled_from([0.02, 1.0, 20.0]))
def test_the_kernel_writes_what_plain_integers_write(
    seed: int, shape: tuple[int, int], spread: float
) -> None:
    symbols = drawn(seed, *shape, spread)
    tables = tables_of(symbols)
    assert encode(symbols, tables) == plain_encode(symbols, tables)


@pytest.mark.parametrize(
    ("count", "log_lanes"), [(1_000, 0), (4_000, 1), (10_001, 2), (20_001, 3), (120_000, 3)]
)
def test_several_lanes(count: int, log_lanes: int) -> None:
    symbols = drawn(5, 3, count, 8.0)
    tables = tables_of(symbols)
    body = encode(symbols, tables)
    assert body[0] == log_lanes
    np.testing.assert_array_equal(decode(body, tables, count), symbols)
    assert len(body) <= allowed(tables, symbols)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.integers(-(2**30), 2**30),
            st.integers(-20, 20),
            st.sampled_from([-(2**30), 2**30, 10**6, -(10**6)]),
        ),
        min_size=1,
        max_size=60,
    ),
    st.sampled_from([-(2**30), -3, 0, 5, 2**30 - 3]),
    st.integers(0, 3),
)
def test_escapes_reach_two_to_the_thirty(values: list[int], low: int, own: int) -> None:
    symbols: NDArray[np.int32] = np.array([values], np.int32)
    tables = Tables.from_probabilities(
        1,
        np.array([low], np.int32),
        [np.ones(own + 1)],
        np.zeros(1, np.float32),
        np.ones(1, np.float32),
    )
    body = encode(symbols, tables)
    np.testing.assert_array_equal(decode(body, tables, len(values)), symbols)
    assert len(body) <= allowed(tables, symbols)


def test_nothing_costs_nothing() -> None:
    tables = tables_of(drawn(1, 3, 50, 1.0))
    assert encode(np.zeros((3, 0), np.int32), tables) == b""
    assert decode(b"", tables, 0).shape == (3, 0)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), shapes, spreads, st.integers(1, 2**32 - 1))
def test_tables_return(seed: int, shape: tuple[int, int], spread: float, version: int) -> None:
    tables = tables_of(drawn(seed, *shape, spread), version)
    assert all(int(row.sum()) == 65536 and row.min() >= 1 for row in tables.frequencies)
    again = Tables.from_bytes(tables.to_bytes())
    assert again.to_bytes() == tables.to_bytes()
    assert again.digest == tables.digest
    assert len(tables.digest) == 16


def test_another_version_is_another_digest() -> None:
    symbols = drawn(1, 3, 50, 1.0)
    assert tables_of(symbols, 1).digest != tables_of(symbols, 2).digest


def test_what_is_too_rare_is_left_to_the_escape() -> None:
    one = np.ones(1, np.float32)
    tails = 10.0 ** -np.arange(12, dtype=np.float64)
    p = np.concatenate([tails[::-1], tails[1:], [1e-12]])
    tables = Tables.from_probabilities(1, np.array([-11], np.int32), [p], one, one)
    assert tables.lows[0] == -5  # 0.8e-5 of all is more than half of 2**-16
    assert tables.frequencies[0].size == 11 + 1
    symbols: NDArray[np.int32] = np.array([[-11, -6, -5, 0, 5, 6, 11]], np.int32)
    np.testing.assert_array_equal(decode(encode(symbols, tables), tables, 7), symbols)


@pytest.mark.parametrize("shape", [(2, 3), (1, 3, 7), (4, 3, 5, 6), (0, 3, 5)])
def test_the_receiver_decodes_what_the_sender_can_compute(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(3)
    centres = rng.normal(size=3).astype(np.float32)
    steps: NDArray[np.float32] = np.array([1.0, 0.3, 1e-3], np.float32)
    tables = Tables.from_symbols(7, drawn(2, 3, 90, 3.0), centres, steps)
    codec = TableCodec(tables)
    y = rng.normal(size=shape).astype(np.float32)
    wide = (1, 3, *(1,) * (len(shape) - 2))
    step, centre = steps.reshape(wide), centres.reshape(wide)
    expected = np.rint((y - centre) / step) * step + centre
    np.testing.assert_array_equal(codec.decode(codec.encode(y), shape), expected)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 2.0**30, -(2.0**30), 3e38])
def test_what_is_no_symbol_is_refused(value: float) -> None:
    tables = tables_of(drawn(1, 3, 50, 1.0))
    y = np.zeros((2, 3, 4), np.float32)
    y[1, 2, 3] = value
    with pytest.raises(EncodeError, match="features"):
        TableCodec(tables).encode(y)


def test_other_channels_are_refused() -> None:
    codec = TableCodec(tables_of(drawn(1, 3, 50, 1.0)))
    with pytest.raises(EncodeError, match="3 channels"):
        codec.encode(np.zeros((2, 4), np.float32))
    with pytest.raises(ManifestError, match="3 channels"):
        codec.decode(b"", (2, 4))
    with pytest.raises(EncodeError, match="3 channels"):
        encode(np.zeros((4, 2), np.int32), codec.tables)


def test_symbols_beyond_two_to_the_thirty_are_refused() -> None:
    tables = tables_of(drawn(1, 1, 50, 1.0))
    with pytest.raises(EncodeError, match="beyond"):
        encode(np.array([[2**30 + 1]], np.int32), tables)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"version": 0}, "version"),
        ({"lows": np.zeros(2, np.int32)}, "shape"),
        ({"steps": np.zeros(1, np.float32)}, "step"),
        ({"centres": np.full(1, np.nan, np.float32)}, "centred"),
        ({"frequencies": (np.array([65536, 0], np.uint32),)}, "positive"),
        ({"frequencies": (np.array([1, 2], np.uint32),)}, "sum 65536"),
        ({"lows": np.full(1, 2**30, np.int32)}, "beyond"),
    ],
)
def test_impossible_tables_are_refused(change: dict[str, object], match: str) -> None:
    good: dict[str, object] = {
        "version": 1,
        "lows": np.zeros(1, np.int32),
        "frequencies": (np.array([65530, 6], np.uint32),),
        "centres": np.zeros(1, np.float32),
        "steps": np.ones(1, np.float32),
    }
    Tables(**good)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=match):
        Tables(**(good | change))  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [[], [-1.0, 2.0], [np.nan], [0.0, 0.0], [np.inf]])
def test_impossible_probabilities_are_refused(bad: list[float]) -> None:
    one = np.ones(1, np.float32)
    with pytest.raises(ConfigError, match="no tables"):
        Tables.from_probabilities(1, np.zeros(1, np.int32), [np.array(bad, np.float64)], one, one)


@pytest.mark.parametrize("text", ["none", "fp16", "int8", "topk(density=0.1)", "intn(bits=4)"])
@pytest.mark.parametrize("shape", [(5, 3), (2, 4, 7), (2, 24, 7, 7)])
def test_any_preset_codes_features(text: str, shape: tuple[int, ...]) -> None:
    y = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    body = feature_codec(text).encode(y)
    out = PresetCodec("none").decode(body, shape)  # the body names its codec
    assert out.shape == shape
    if text == "none":
        np.testing.assert_array_equal(out, y)
    elif not text.startswith("topk"):
        assert np.abs(out - y).max() < 0.3


def test_scales_are_of_channels() -> None:
    y = np.random.default_rng(1).normal(size=(8, 3, 5)).astype(np.float32)
    y *= np.array([1.0, 1e-4, 1e4], np.float32)[:, None]
    codec = feature_codec("int8")
    out = codec.decode(codec.encode(y), y.shape)
    for channel in range(3):
        scale = np.abs(y[:, channel]).max() / 127
        assert np.abs(out[:, channel] - y[:, channel]).max() <= 0.51 * scale
