"""Damaged tables and feature streams: refused, or other symbols, in bounded time and memory."""

from __future__ import annotations

import random
import struct
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from flowerpress.compression.errors import (
    FormatError,
    LimitError,
    ManifestError,
    NonFiniteError,
    TruncatedError,
    WireError,
)
from flowerpress.compression.features import (
    FeatureCodec,
    PresetCodec,
    TableCodec,
    Tables,
    decode,
    encode,
    feature_codec,
)
from tests.hostile.mutate import damaged, traced, varint

MUTANTS = 10_000
SLOWEST = 2.0  # seconds
MEMORY = 1 << 20


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """A warning of NumPy means that an invalid number got further than it should."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def drawn(c: int, n: int, spread: float, seed: int = 0) -> NDArray[np.int32]:
    return np.rint(np.random.default_rng(seed).laplace(0, spread, (c, n))).astype(np.int32)


def tables_of(symbols: NDArray[np.int32]) -> Tables:
    one = np.ones(len(symbols), np.float32)
    return Tables.from_symbols(1, symbols, 0 * one, one)


def escaping() -> NDArray[np.int32]:
    symbols = drawn(3, 40, 1.0)
    symbols[0, :4] = [10**6, -(10**6), 2**30, -(2**30)]
    return symbols


# The shape of the symbols, and what their tables are made of.
STREAMS: dict[str, tuple[NDArray[np.int32], Tables]] = {
    "one lane": (drawn(4, 60, 2.0), tables_of(drawn(4, 400, 2.0))),
    "almost nothing": (drawn(24, 49, 0.1), tables_of(drawn(24, 49, 0.1))),
    "escapes": (escaping(), tables_of(drawn(3, 400, 1.0))),
    "four lanes": (drawn(3, 7500, 6.0), tables_of(drawn(3, 7500, 6.0))),
}


def ends(attempt: Callable[[bytes], object], body: bytes) -> str:
    """How decoding ends: an error's name, or nothing; anything but a WireError is a bug."""
    start = time.thread_time()
    try:
        attempt(body)
    except WireError as error:
        return type(error).__name__ if error.field else "nothing was named"
    finally:
        assert time.thread_time() - start < SLOWEST, body.hex()
    return ""


def stream(name: str) -> tuple[bytes, Callable[[bytes], NDArray[np.int32]]]:
    symbols, tables = STREAMS[name]

    def attempt(body: bytes) -> NDArray[np.int32]:
        out = decode(body, tables, symbols.shape[1])
        assert out.shape == symbols.shape
        assert np.abs(out.astype(np.int64)).max() <= 2**30
        return out

    return encode(symbols, tables), attempt


def changes(body: bytes, count: int, seed: int) -> Iterator[bytes]:
    rng = random.Random(seed)
    for _ in range(count):
        yield damaged(body, rng)


@pytest.mark.parametrize("name", [name for name in STREAMS if name != "four lanes"])
def test_every_truncation_and_every_flipped_bit_of_a_stream(name: str) -> None:
    body, attempt = stream(name)
    original = attempt(body)
    seen: Counter[str] = Counter()
    for size in range(len(body)):
        seen[ends(attempt, body[:size])] += 1
    for bit in range(8 * len(body)):
        data = bytearray(body)
        data[bit // 8] ^= 1 << bit % 8
        end = ends(attempt, bytes(data))
        # An encoder has one body for each array: no other decodes to the same.
        assert end or not np.array_equal(attempt(bytes(data)), original)
        seen[end] += 1
    if name != "almost nothing":  # whose every byte is state
        assert seen["TruncatedError"] + seen["FormatError"] > 0.8 * seen.total()


@pytest.mark.parametrize("name", list(STREAMS))
def test_mutants_of_streams(name: str) -> None:
    body, attempt = stream(name)
    attempt(body)
    seen: Counter[str] = Counter()
    for index, mutant in enumerate(changes(body, MUTANTS // len(STREAMS), len(name))):
        if index % 16:
            seen[ends(attempt, mutant)] += 1
            continue
        with traced() as peak:
            seen[ends(attempt, mutant)] += 1
            assert peak() <= 6 * STREAMS[name][0].nbytes + MEMORY
    assert set(seen) <= {"", "TruncatedError", "FormatError"}
    assert seen["FormatError"]


def test_every_truncation_and_every_flipped_bit_of_tables() -> None:
    tables = STREAMS["one lane"][1]
    body = tables.to_bytes()
    for size in range(len(body)):
        assert ends(Tables.from_bytes, body[:size]) == "TruncatedError"
    for bit in range(8 * len(body)):
        data = bytearray(body)
        data[bit // 8] ^= 1 << bit % 8
        if not ends(Tables.from_bytes, bytes(data)):
            # Other numbers are other tables, and their digest says so.
            again = Tables.from_bytes(bytes(data))
            assert again.to_bytes() == bytes(data)
            assert again.digest != tables.digest


def test_mutants_of_tables_are_refused_or_code_like_any_others() -> None:
    symbols, tables = STREAMS["one lane"]
    body = tables.to_bytes()
    seen: Counter[str] = Counter()
    for index, mutant in enumerate(changes(body, MUTANTS, 5)):
        with traced() if index % 16 == 0 else none() as peak:
            end = ends(Tables.from_bytes, mutant)
            assert peak() <= MEMORY
        seen[end] += 1
        if not end:
            other = Tables.from_bytes(mutant)
            rows = symbols[np.arange(other.channels) % 4]
            np.testing.assert_array_equal(decode(encode(rows, other), other, 60), rows)
    assert set(seen) >= {"TruncatedError", "FormatError", "LimitError", ""}
    assert "nothing was named" not in seen


class none:  # noqa: N801 - stands in for ``traced``, which triples the time
    def __enter__(self) -> Callable[[], int]:
        return lambda: 0

    def __exit__(self, *_: object) -> None:
        pass


def channel(centre: float = 0.0, step: float = 1.0, low: int = 0, *own: int) -> bytes:
    head = struct.pack("<ff", centre, step) + varint(2 * low) + varint(len(own))
    return head + b"".join(varint(f - 1) for f in own)


@pytest.mark.parametrize(
    ("body", "error", "match"),
    [
        (b"", TruncatedError, "ends"),
        (b"\2", FormatError, "format 2"),
        (b"\1\0\0", FormatError, "version"),
        (b"\1" + varint(2**32) + b"\0", FormatError, "version"),
        (b"\1\1" + varint(4097), LimitError, "4097 channels"),
        (b"\1\1" + varint(2**62), LimitError, "channels"),
        (b"\1\1\1" + channel(np.nan), NonFiniteError, "nan"),
        (b"\1\1\1" + channel(0.0, np.inf), NonFiniteError, "inf"),
        (b"\1\1\1" + channel(0.0, 0.0), FormatError, "step"),
        (b"\1\1\1" + channel(0.0, -1.0), FormatError, "step"),
        (b"\1\1\1" + channel(0.0, 1.0, 2**30 + 1), FormatError, "beyond"),
        (b"\1\1\1" + channel(0.0, 1.0, 2**30, 1), FormatError, "beyond"),
        (b"\1\1\1" + channel(0.0, 1.0, 0, 65536), FormatError, "sum"),
        (b"\1\1\1" + channel(0.0, 1.0, 0, 2**62, 2**62), FormatError, "sum"),
        (b"\1\1\1" + channel(0.0, 1.0, 0, 5) + b"\0", FormatError, "left over"),
        (b"\1\1\1" + channel()[:-1] + varint(2**40), LimitError, "symbols"),
        (b"\1\1\1" + channel()[:-1] + varint(2**19), TruncatedError, "ends"),
    ],
)
def test_what_no_tables_say(body: bytes, error: type[WireError], match: str) -> None:
    with traced() as peak, pytest.raises(error, match=match):
        Tables.from_bytes(body)
    assert peak() < MEMORY


def test_limits_are_the_receivers() -> None:
    body = STREAMS["one lane"][1].to_bytes()
    with pytest.raises(LimitError, match="at most 3"):
        Tables.from_bytes(body, max_channels=3)
    with pytest.raises(LimitError, match="more symbols"):
        Tables.from_bytes(body, max_symbols=10)


def test_the_largest_tables_are_read_in_time() -> None:
    rows = tuple(np.append(np.ones(60000, np.uint32), np.uint32(5536)) for _ in range(17))
    one = np.ones(17, np.float32)
    body = Tables(1, np.zeros(17, np.int32), rows, one, one).to_bytes()
    assert ends(Tables.from_bytes, body) == ""


@pytest.mark.parametrize(
    ("body", "error", "match"),
    [
        (b"", TruncatedError, "ends"),
        (b"\x10", FormatError, "mode"),
        (b"\x05", FormatError, "mode"),
        (b"\x08\0", FormatError, "no bytes"),
        (b"\x08\x05", TruncatedError, "escapes"),
        (b"\x08" + varint(2**60), TruncatedError, "escapes"),
        (b"\x08\1\0", FormatError, "0 escapes in 1 bytes"),
        (b"\0\1\0", FormatError, "padded"),
        (b"\0" + bytes(5) + b"\1\0", FormatError, "half a word"),
        (b"\1" + bytes(11), TruncatedError, "12 bytes"),
        (b"\1" + bytes(12), TruncatedError, "last symbol"),
        (b"\0" + b"\xff" * 6, FormatError, "state"),
        (b"\0" + b"\xff" * 2000, FormatError, "goes on"),
    ],
)
def test_what_no_stream_says(body: bytes, error: type[WireError], match: str) -> None:
    with pytest.raises(error, match=match):
        decode(body, STREAMS["one lane"][1], 60)


def test_a_stream_for_nothing_is_empty() -> None:
    with pytest.raises(FormatError, match="left over"):
        decode(b"\0", STREAMS["one lane"][1], 0)


@pytest.mark.parametrize(
    "text", ["none", "fp16", "int8", "intn(bits=4)", "topk(density=0.1,values=qsgd)"]
)
def test_mutants_of_presets(text: str) -> None:
    y = np.random.default_rng(0).standard_normal((3, 4, 5)).astype(np.float32)
    codec: FeatureCodec = feature_codec(text)
    body = codec.encode(y, np.random.default_rng(1))
    finite = 0
    for mutant in changes(body, 1000, 7):
        if not ends(lambda mutant: PresetCodec("none").decode(mutant, y.shape), mutant):
            out = codec.decode(mutant, y.shape)
            assert out.shape == y.shape
            assert np.isfinite(out).all()
            finite += 1
    assert finite < 1000


def test_values_that_overflow_are_refused() -> None:
    one = np.ones(1, np.float32)
    tables = Tables(1, np.zeros(1, np.int32), (np.array([1, 65535], np.uint32),), one, 1e30 * one)
    body = encode(np.array([[0, 2**30]], np.int32), tables)
    with pytest.raises(NonFiniteError, match="infinity"):
        TableCodec(tables).decode(body, (2, 1))


def test_a_codec_that_no_one_has_is_refused() -> None:
    body = b"\1\x63" + bytes(12)
    with pytest.raises(FormatError, match=r"features: .*unknown codec tag 99"):
        PresetCodec("none").decode(body, (1, 3))


@pytest.mark.parametrize("shape", [(), (3,)])
def test_shapes_without_channels_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ManifestError, match="shape"):
        TableCodec(STREAMS["one lane"][1]).decode(b"", shape)
    with pytest.raises(ManifestError, match="shape"):
        PresetCodec("none").decode(b"", shape)
