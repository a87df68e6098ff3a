"""Small number formats: every rounding against a slow twin, every bound, every refusal."""

from __future__ import annotations

import math
from bisect import bisect_left
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from flowerpress.compression import (
    ConfigError,
    Context,
    Dense,
    EncodeError,
    FormatError,
    NonFiniteError,
    Pipeline,
    TensorSpec,
    TruncatedError,
    UnknownNameError,
    WireError,
    Writer,
    preset,
)
from flowerpress.compression.coders.rans import Rans
from flowerpress.compression.kernels import formats as kernel
from flowerpress.compression.presets.values import VALUES, grouping, values_stage
from flowerpress.compression.stages import (
    Bfloat,
    Float8,
    Half,
    Integers,
    Normal4,
    Single,
    Stage,
    stage_class,
)
from flowerpress.compression.stages.float8 import FORMATS
from flowerpress.compression.stages.normal4 import normal_levels
from flowerpress.compression.stages.scales import CHANNEL, TENSOR, Grouping, channels
from flowerpress.compression.wire import Reader

QUICK = settings(deadline=None, max_examples=50)
F32 = np.finfo(np.float32)
TINY = 2.0**-149
SHAPES = [(), (0,), (1,), (7,), (1100,), (0, 5), (5, 0), (40, 1), (6, 50), (3, 4, 5), (5, 3, 3, 3)]
KINDS = ["normal", "zeros", "negative zeros", "constant", "denormal", "huge", "mixed", "spike"]


def values(kind: str, shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape).astype(np.float32)
    if kind == "zeros":
        x = np.zeros(shape, np.float32)
    elif kind == "negative zeros":
        x = np.full(shape, -0.0, np.float32)
    elif kind == "constant":
        x = np.full(shape, -0.375, np.float32)
    elif kind == "denormal":
        x = x * np.float32(2.0**-140)
    elif kind == "huge":
        x = np.clip(x, -1, 1) * F32.max
    elif kind == "mixed":
        x = x * np.float32(10.0) ** rng.integers(-30, 30, shape).astype(np.float32)
    elif kind == "spike":
        x = np.where(rng.random(shape) < 0.02, x, 0).astype(np.float32)
    return np.asarray(x, np.float32)


@st.composite
def tensors(draw: st.DrawFn, kinds: list[str] = KINDS) -> NDArray[np.float32]:
    shape = draw(st.sampled_from(SHAPES))
    return values(draw(st.sampled_from(kinds)), shape, draw(st.integers(0, 2**32 - 1)))


def coded(stage: Stage, x: NDArray[Any], code: str = "raw") -> tuple[bytes, NDArray[np.float32]]:
    codec, spec = Pipeline([stage], code), TensorSpec("w", x.shape)
    body = codec.encode(x, spec, Context())
    decoded = codec.decode(memoryview(body), spec)
    assert isinstance(decoded, Dense)
    assert decoded.values.dtype == np.float32
    return body, decoded.values


def scales_of(x: NDArray[np.float32], group: int, divisor: float) -> NDArray[np.float64]:
    """One scale for each value, as a decoder has it, by plain rules."""
    spec = TensorSpec("w", x.shape)
    line = x.reshape(-1)
    length = {TENSOR: line.size, CHANNEL: line.size // channels(spec)}.get(group, group)
    out = np.empty(line.size)
    for start in range(0, line.size, max(length, 1)):
        part = slice(start, start + length)
        cap = np.nextafter(F32.max / np.float32(divisor), np.float32(0))
        scale = min(np.float32(np.abs(line[part]).max() / np.float32(divisor)), cap)
        if group > 1:  # the next bfloat16 from here up
            code = (scale.view(np.uint32) + np.uint32(0xFFFF)) >> 16
            code = min(code, cap.view(np.uint32) >> 16)
            scale = (np.uint32(code) << np.uint32(16)).view(np.float32)
        out[part] = scale
    return out


# --- two bytes and four -----------------------------------------------------------------------


@QUICK
@given(tensors())
def test_half_rounds_as_ieee_754_does(x: NDArray[np.float32]) -> None:
    line = (x * np.float32(65000 / F32.max) if np.abs(x).max(initial=0) > 6e4 else x).reshape(-1)
    body, _ = coded(Half(), line)
    assert body == line.astype("<f2").tobytes()


def test_half_at_every_halfway_point() -> None:
    patterns = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float64)
    middles = ((patterns[1:] + patterns[:-1]) / 2).astype(np.float32)
    near = [middles, np.nextafter(middles, np.float32(0)), np.nextafter(middles, F32.max)]
    x = np.concatenate([*near, patterns.astype(np.float32)])
    x = np.concatenate([x, -x])
    out = np.empty(x.size, np.uint16)
    kernel.half(x, x.view(np.uint32), out)
    np.testing.assert_array_equal(out, x.astype(np.float16).view(np.uint16))


@QUICK
@given(tensors([kind for kind in KINDS if kind != "huge"]))
def test_bf16_is_what_torch_rounds_to(x: NDArray[np.float32]) -> None:
    _, got = coded(Bfloat(), x)
    line = np.ascontiguousarray(x).reshape(-1)
    expected = torch.from_numpy(line.copy()).bfloat16().float().numpy()
    np.testing.assert_array_equal(got.view(np.uint32), expected.view(np.uint32))
    assert (np.abs(got - line) <= np.abs(line) * 2.0**-8 + 2.0**-134).all()


def test_bf16_refuses_what_it_would_make_infinite() -> None:
    top = np.float32(3.3895313892515355e38)
    below = np.float32(3.39617e38)  # rounds down to the largest
    _, got = coded(Bfloat(), np.array([top, -below], np.float32))
    np.testing.assert_array_equal(got, [top, -top])
    for beyond in (3.396178e38, -F32.max):
        with pytest.raises(EncodeError, match=r"'w': a value beyond 3.39e\+38 does not fit bf16"):
            coded(Bfloat(), np.array([0, beyond], np.float32))


@QUICK
@given(tensors(), st.sampled_from(["raw", "rans"]))
def test_fp32_keeps_single_precision(x: NDArray[np.float32], code: str) -> None:
    body, got = coded(Single(), x, code)
    assert got.tobytes() == x.tobytes()
    assert code == "rans" or body == x.astype("<f4").tobytes()


# --- scales -----------------------------------------------------------------------------------


@pytest.mark.parametrize("group", [TENSOR, CHANNEL, 2, 64, 5000])
def test_a_scale_for_each_group(group: int) -> None:
    x = values("mixed", (6, 50), 1)
    spec = TensorSpec("w", x.shape)
    side = Writer()
    written = Grouping(group, 7.0).write(x.reshape(-1), spec, side)
    read = Grouping(group, 7.0).read(x.size, spec, Reader(side.getvalue(), "w"))
    np.testing.assert_array_equal(written, read)
    length = Grouping(group, 7.0).length(x.size, spec)
    assert length == {TENSOR: 300, CHANNEL: 50}.get(group, group)
    np.testing.assert_array_equal(np.repeat(read, length)[:300], scales_of(x, group, 7.0))
    assert len(side.getvalue()) <= 4 * read.size + 3


def test_scales_of_blocks_are_never_too_small_and_cost_nine_bits() -> None:
    x = np.random.default_rng(0).standard_normal(1 << 18).astype(np.float32)
    side = Writer()
    scales = Grouping(64, 127.0).write(x, TensorSpec("w", x.shape), side)
    tops = np.abs(x).reshape(-1, 64).max(axis=1).astype(np.float64)
    assert (scales * 127.0 >= tops * (1 - 2.0**-22)).all()
    assert (scales * 127.0 <= tops * (1 + 2.0**-7) * (1 + 2.0**-22)).all()
    assert 8 * len(side) < 9.5 * scales.size


@pytest.mark.parametrize("divisor", [1.0, 7.0, 127.0, 448.0, 57344.0])
@pytest.mark.parametrize("group", [TENSOR, CHANNEL, 16])
def test_scales_refused(group: int, divisor: float) -> None:
    spec = TensorSpec("w", (4, 8))
    groups = {TENSOR: 1, CHANNEL: 4, 16: 2}[group]

    def body(scale: float) -> Reader:
        side = Writer()
        patterns = np.full(groups, scale, np.float32)
        if group < 2:
            side.raw(patterns.tobytes())
        else:
            side.blob(Rans().encode(patterns.view(np.uint32) >> 16, 1 << 15))
        return Reader(side.getvalue(), "w")

    for scale in (np.nan, np.inf):
        with pytest.raises(NonFiniteError, match="scales: NaN or infinity"):
            Grouping(group, divisor).read(32, spec, body(scale))
    bad = [-1.0] if group < 2 else []  # a pattern of fifteen bits has no sign
    bad += [float(F32.max) / divisor * 1.02] if divisor > 1 else []
    for scale in bad:
        with pytest.raises(FormatError, match="scales: negative, or too large"):
            Grouping(group, divisor).read(32, spec, body(scale))
    with pytest.raises(TruncatedError):
        Grouping(group, divisor).read(32, spec, Reader(b"\x03\x02", "w"))


def test_groupings_by_name() -> None:
    assert [grouping(name, 32) for name in ("tensor", "channel", "block")] == [0, 1, 32]
    with pytest.raises(UnknownNameError, match="unknown scale 'row'"):
        grouping("row")
    for text in ("int4(block=1)", "nf4(block=0)", "int4(block=2147483648)"):
        with pytest.raises(ConfigError, match="block is"):
            preset(text)
    with pytest.raises(UnknownNameError, match="scale of eight-bit formats 'block'"):
        preset("fp8(scale=block)")


# --- integers ---------------------------------------------------------------------------------


@QUICK
@given(tensors(), st.integers(2, 8), st.sampled_from([TENSOR, CHANNEL, 2, 16, 4096]))
def test_integers_are_within_half_a_scale(x: NDArray[np.float32], bits: int, group: int) -> None:
    largest = 2 ** (bits - 1) - 1
    body, got = coded(Integers(bits, group), x)
    assert np.isfinite(got).all()
    scales = scales_of(x, group, largest)
    line = x.reshape(-1).astype(np.float64)
    # Scales of single numbers and channels may round down to nothing.
    assert (np.abs(got - line) <= scales * (0.5 + 2.0**-15) + (largest + 1) * TINY).all()
    levels = np.frombuffer(body[len(body) - x.size :], np.uint8)
    assert levels.max(initial=0) <= 2 * largest
    with np.errstate(over="ignore"):
        expected = (levels.astype(np.float32) - np.float32(largest)) * scales.astype(np.float32)
    np.testing.assert_array_equal(got, expected)


def test_int8_per_tensor_and_per_channel() -> None:
    x = np.array([[127, 1, 0, -64], [0.127, 0.001, 0, -0.064]], np.float32)
    _, tensor = coded(Integers(8, TENSOR), x)
    np.testing.assert_array_equal(tensor, [127, 1, 0, -64, 0, 0, 0, 0])
    _, channel = coded(Integers(8, CHANNEL), x)
    np.testing.assert_allclose(channel, x.reshape(-1), rtol=1e-6)
    assert preset("int8(scale=tensor)").codec(TensorSpec("w", (2, 4))).describe() == (
        "int8, a scale for a tensor > rans"
    )


# --- fp8 --------------------------------------------------------------------------------------

TORCH = {"e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}


def float8_twin(name: str) -> list[float]:
    """All magnitudes of a format, by the definition of its fields."""
    mantissa, bias, top = {"e4m3": (3, 7, 0x7E), "e5m2": (2, 15, 0x7B)}[name]
    found = []
    for exponent, fraction in product(range(1 << (7 - mantissa)), range(1 << mantissa)):
        if (exponent << mantissa) + fraction > top:
            break
        implicit = 1 if exponent else 0
        found.append((implicit + fraction / (1 << mantissa)) * 2.0 ** (max(exponent, 1) - bias))
    return found


@pytest.mark.parametrize(("name", "largest"), [("e4m3", 448.0), ("e5m2", 57344.0)])
def test_fp8_has_the_values_of_the_formats(name: str, largest: float) -> None:
    twin = float8_twin(name)
    assert twin[-1] == largest == FORMATS[name].largest
    table = Float8(name).table()
    np.testing.assert_array_equal(table[: len(twin)], twin)
    np.testing.assert_array_equal(table[128 : 128 + len(twin)], -np.array(twin))
    bits = torch.arange(256, dtype=torch.uint8).view(TORCH[name]).float().numpy()
    np.testing.assert_array_equal(table, bits)
    assert np.isfinite(table).sum() == {"e4m3": 254, "e5m2": 248}[name]


@pytest.mark.parametrize("name", ["e4m3", "e5m2"])
def test_fp8_rounds_to_nearest_even_and_saturates(name: str) -> None:
    twin = np.array(float8_twin(name))
    middles = (twin[1:] + twin[:-1]) / 2
    near = [middles, middles * (1 - 2.0**-20), middles * (1 + 2.0**-20), twin]
    beyond = np.array([1.01, 1.1, 2, 1e3, 1e30]) * twin[-1]
    x = np.concatenate([*near, beyond, [1e-30, 1e-45]]).astype(np.float32)
    x = np.concatenate([x, -x])
    out = np.empty(x.size, np.uint8)
    layout = FORMATS[name]
    one = np.ones(1, np.float32)
    kernel.float8(x, one, x.size, layout.mantissa, layout.bias, layout.top, out)
    for value, pattern in zip(x, out, strict=True):
        magnitude = abs(float(value))
        at = bisect_left(twin, magnitude)
        if at == len(twin):
            expected = len(twin) - 1
        elif at == 0 or twin[at] == magnitude:
            expected = at
        else:
            low, high = magnitude - twin[at - 1], twin[at] - magnitude
            even = at if at % 2 == 0 else at - 1
            expected = at - 1 if low < high else at if high < low else even
        assert pattern & 127 == expected
        assert (pattern >> 7 == 1) == bool(np.signbit(value))
    inside = np.abs(x) <= twin[-1]
    theirs = torch.from_numpy(x[inside]).to(TORCH[name]).view(torch.uint8).numpy()
    np.testing.assert_array_equal(out[inside], theirs)


@QUICK
@given(tensors(), st.sampled_from(["e4m3", "e5m2"]), st.sampled_from([TENSOR, CHANNEL, 32]))
def test_fp8_error(x: NDArray[np.float32], name: str, group: int) -> None:
    _, got = coded(Float8(name, group), x, "rans")
    layout = FORMATS[name]
    scales = scales_of(x, group, layout.largest)
    line = x.reshape(-1).astype(np.float64)
    relative, smallest = 2.0 ** -(layout.mantissa + 1), 2.0 ** (1 - layout.bias - layout.mantissa)
    bound = np.abs(line) * relative * (1 + 2.0**-18) + smallest / 2 * scales
    assert (np.abs(got - line) <= bound + layout.largest * TINY).all()
    # The largest of each group is the format's largest, and stays what it was.
    if line.size and np.abs(line).max() > 1e-30 and group == TENSOR:
        top = np.abs(line).argmax()
        assert got[top] == pytest.approx(line[top], rel=2.0**-20)


@pytest.mark.parametrize(
    ("name", "pattern"),
    [("e4m3", 0x7F), ("e4m3", 0xFF), ("e5m2", 0x7C), ("e5m2", 0xFD), ("e5m2", 0xFF)],
)
def test_fp8_patterns_that_are_no_numbers_are_found_out(name: str, pattern: int) -> None:
    body = np.float32(1).tobytes() + bytes([1, pattern])
    decoded = Pipeline([Float8(name)], "raw").decode(memoryview(body), TensorSpec("w", (2,)))
    assert not decoded.is_finite()


# --- nf4 --------------------------------------------------------------------------------------


def test_nf4_levels_are_the_quantiles_of_the_paper() -> None:
    # Dettmers et al. 2023, appendix E, to the digits in which two computations can agree.
    listed = [
        *(-1.0, -0.6961928, -0.5250731, -0.3949175, -0.2844414, -0.1847734, -0.0910500, 0.0),
        *(0.0795803, 0.1609302, 0.2461123, 0.3379152, 0.4407098, 0.5626170, 0.7229568, 1.0),
    ]
    np.testing.assert_allclose(normal_levels(), listed, atol=3e-7)
    assert normal_levels()[7] == 0
    # Quantiles, by integrating the density: equal steps of probability to either side of zero.
    erf = np.vectorize(math.erf)
    outermost = 1.8481308  # the quantile at 1 - (1/30 + 1/32) / 2
    shares = erf(normal_levels() * outermost / math.sqrt(2)) / 2
    for side, steps in ((shares[7:], 8), (shares[:8], 7)):
        np.testing.assert_allclose(np.diff(side), (1 - (1 / 30 + 1 / 32) / 2 - 0.5) / steps, 1e-5)


@QUICK
@given(tensors(), st.sampled_from([2, 64, 1000, TENSOR, CHANNEL]))
def test_nf4_takes_the_nearest_level(x: NDArray[np.float32], group: int) -> None:
    _, got = coded(Normal4(group), x, "pack")
    scales = scales_of(x, group, 1.0)
    line = x.reshape(-1).astype(np.float64)
    options = scales[:, None] * normal_levels().astype(np.float64)
    nearest = np.abs(line[:, None] - options).min(axis=1, initial=np.inf)
    error = np.abs(got - line)
    # Divisions round, so a value near the middle of two levels may go to either.
    assert (error <= nearest + scales * 2.0**-20 + TINY).all()


def test_nf4_takes_four_bits_and_what_its_scales_take() -> None:
    x = np.random.default_rng(1).standard_normal((512, 512)).astype(np.float32)
    body, got = coded(Normal4(64), x, "pack")
    assert 4 * x.size < 8 * len(body) < (4 + 9.5 / 64) * x.size
    error = float(((got - x.reshape(-1)) ** 2).sum() / (x.astype(np.float64) ** 2).sum())
    assert error < 0.009
    coarse = float(((coded(Integers(4, 64), x)[1] - x.reshape(-1)) ** 2).sum())
    assert error * float((x**2).sum()) < 0.9 * coarse  # which is the point of these levels


# --- parameters -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "stage",
    [
        *(Bfloat(), Single(), Integers(3, 0), Integers(8, 1), Integers(4, 64), Normal4(2)),
        *(Float8("e4m3", 1), Float8("e5m2", 0), Float8("e5m2", 300), Normal4(0), Normal4(1)),
    ],
    ids=Stage.describe,
)
def test_parameters_survive(stage: Stage) -> None:
    out = Writer()
    stage.write_params(out)
    reader = Reader(out.getvalue(), "recipe")
    again = stage_class(stage.tag, "recipe").read_params(reader)
    reader.finish()
    assert again.describe() == stage.describe()
    assert again.alphabet == stage.alphabet
    assert again.takes is stage.takes


@pytest.mark.parametrize(
    ("stage", "body", "message"),
    [
        (Integers, b"\x01\x00", "integers: of 1 bits"),
        (Integers, b"\x09\x00", "integers: of 9 bits"),
        (Integers, b"\x08\x80\x80\x80\x80\x08", "group: blocks of 2147483648 values"),
        (Float8, b"\x02\x00", "fp8: unknown format 2"),
        (Normal4, b"", "ends where another byte is due"),
    ],
)
def test_parameters_that_no_encoder_writes(stage: type[Stage], body: bytes, message: str) -> None:
    with pytest.raises(WireError, match=message):
        stage.read_params(Reader(body, "recipe"))


def test_parameters_out_of_range() -> None:
    for bits in (1, 9):
        with pytest.raises(ConfigError, match="bits is"):
            Integers(bits)
    with pytest.raises(UnknownNameError, match="eight-bit floats 'e3m4'"):
        Float8("e3m4")
    with pytest.raises(ConfigError, match=r"int8, a .* cannot follow|int8 cannot follow|integers "):
        Pipeline([Half(), Integers(8, CHANNEL)], "rans")
    with pytest.raises(UnknownNameError, match="format of values 'f8'"):
        values_stage("f8")


@QUICK
@given(tensors(["normal", "zeros", "constant", "spike"]), st.sampled_from(VALUES))
def test_every_format_of_values(x: NDArray[np.float32], name: str) -> None:
    stage = values_stage(name)
    codec, spec = Pipeline([stage], "rans"), TensorSpec("w", x.shape)
    body = codec.encode(x, spec, Context(np.random.default_rng(0)))
    got = codec.decode(memoryview(body), spec).dense()
    error = {"fp32": 0, "fp16": 1e-3, "bf16": 4e-3, "e4m3": 0.07, "e5m2": 0.13, "int8": 0.01}
    error |= {"int4": 0.08, "nf4": 0.16, "qsgd": 0.01}
    top = np.abs(x).max(initial=0)
    assert (np.abs(got - x.reshape(-1)) <= error[name] * top).all()
