"""Empty, scalar, constant, denormal, huge, broken and oddly laid out tensors, for every preset.

What is defined: NaN and infinity are refused with the tensor's name. Anything finite decodes to
something finite of the tensor's shape; only values that a format cannot hold are refused instead.
How an array lies in memory changes no byte.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from flowerpress.compression import (
    Codec,
    EncodeError,
    Manifest,
    NonFiniteError,
    TensorSpec,
    apply_frames,
    encode_frames,
    preset,
)
from tests.hostile.specimens import coded, spellings


def _chosen() -> list[str]:
    """All spellings; one for each parameter where tensors are coded together, which takes time."""
    found = {}
    for text in spellings():
        if coded(text) is not None:
            joint = bool(preset(text).plan(Manifest((TensorSpec("x", (9, 9)),))).together)
            found[text.partition("=")[0] if joint else text] = text
    return list(found.values())


SPELLINGS = _chosen()
RNG = np.random.default_rng(4)
NOISE = RNG.standard_normal((12, 30)).astype(np.float32)

FINITE: dict[str, NDArray[Any]] = {
    "empty": np.zeros(0, np.float32),
    "empty rows": np.zeros((0, 4), np.float32),
    "empty columns": np.zeros((3, 0), np.float32),
    "scalar": np.full((), -0.3, np.float32),
    "one": np.full(1, 7e-3, np.float32),
    "one of many axes": np.full((1,) * 16, 2.0, np.float32),
    "a row": NOISE.reshape(1, -1),
    "a column": NOISE.reshape(-1, 1),
    "five axes": NOISE.reshape(2, 3, 2, 6, 5),
    "two values": np.array([1, -1], np.float32),
    "zeros": np.zeros((5, 70), np.float32),
    "negative zeros": np.full(33, -0.0, np.float32),
    "constant": np.full((6, 50), 0.37, np.float32),
    "negative": np.full(40, -3e-4, np.float32),
    "one of a thousand": np.eye(1, 1000, 421, dtype=np.float32),
    "an outlier": np.where(np.arange(360) == 7, 1e4, NOISE.reshape(-1) * 1e-4).astype(np.float32),
    "smallest": np.full((4, 9), 1e-45, np.float32),
    "denormal": (NOISE * 1e-39).astype(np.float32),
    "tiny": (NOISE * 1e-36).astype(np.float32),
    "half": NOISE.astype(np.float16),
    "half denormal": (NOISE * 1e-7).astype(np.float16),
    "double": NOISE.astype(np.float64) * np.pi,
    "double denormal": NOISE.astype(np.float64) * 1e-320,
}
# A format, a scale or a norm may be unable to hold these.
HUGE: dict[str, NDArray[Any]] = {
    "huge": np.sign(NOISE) * np.float32(3e38),
    "largest": np.full(50, np.finfo(np.float32).max),
    "huge and tiny": np.where(NOISE > 1, np.float32(3e38), np.float32(1e-38)),
    "large half": np.sign(NOISE).astype(np.float16) * np.float16(65504),
    "beyond single": NOISE.astype(np.float64) * 1e300,
}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """A warning of NumPy means that nobody thought of these numbers."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def sent(
    text: str,
    array: NDArray[Any],
    dtype: str = "",
    references: dict[str, NDArray[Any]] | None = None,
    relevance: dict[str, NDArray[Any]] | None = None,
    warm: dict[str, NDArray[np.float32]] | None = None,
) -> tuple[NDArray[Any], list[bytes]]:
    """Return what arrives of ``array`` as a model of its own, and the bodies."""
    spec = TensorSpec("x", array.shape, dtype or array.dtype.newbyteorder("=").name)
    manifest = Manifest((spec,))
    plan = preset(text).plan(manifest)
    rng = np.random.default_rng(8)
    held = references or {}
    frames, _ = encode_frames(
        manifest,
        plan,
        {"x": array},
        rng,
        references=held,
        relevance=relevance or {},
        warm=warm or {},
    )
    out = apply_frames(manifest, {}, frames, change=False, references=held)["x"]
    assert out.shape == array.shape
    assert out.dtype == spec.storage
    assert np.isfinite(out).all()
    if plan.lossless:
        np.testing.assert_array_equal(out, spec.cast(array))
    return out, [bytes(frame.body) for frame in frames]


@pytest.mark.parametrize("case", FINITE)
def test_what_is_finite_arrives_finite(case: str) -> None:
    array = FINITE[case]
    for text in SPELLINGS:
        try:
            out, _ = sent(text, array)
        except EncodeError:
            if "bytes" in text:  # they may be too few for this tensor; nothing else is an excuse
                continue
            raise
        if not array.any():
            assert not out.any(), text


@pytest.mark.parametrize("case", HUGE)
def test_what_is_huge_arrives_finite_or_is_refused(case: str) -> None:
    for text in SPELLINGS:
        # A coarse step beyond the largest value overflows where half precision ends.
        with suppress(NonFiniteError) if case == "large half" else nullcontext():
            try:
                sent(text, HUGE[case])
            except EncodeError as error:
                named = error.tensor
            else:
                continue
            assert named == "x", text


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", "bfloat16"])
def test_what_is_not_finite_is_refused_by_name(value: float, dtype: str) -> None:
    for shape in ((), (1,), (7, 40)):
        broken = np.full(shape, 0.1, "float32" if dtype == "bfloat16" else dtype)
        broken.reshape(-1)[-1] = value
        for text in SPELLINGS:
            with pytest.raises(EncodeError, match="'x': NaN or infinity"):
                sent(text, broken, dtype)


def laid_out(array: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Return the values of a matrix as they may lie in memory."""
    rows, columns = array.shape
    wide = np.zeros((rows * 2, columns * 3), array.dtype)
    wide[::2, 1::3] = array
    octets = np.zeros(array.nbytes + 1, np.uint8)
    unaligned = octets[1:].view(array.dtype).reshape(array.shape)
    unaligned[...] = array
    frozen = array.copy()
    frozen.setflags(write=False)
    return {
        "Fortran": np.asfortranarray(array),
        "transposed": np.ascontiguousarray(array.T).T,
        "strided": wide[::2, 1::3],
        "backwards": np.ascontiguousarray(array[::-1, ::-1])[::-1, ::-1],
        "big endian": array.astype(array.dtype.newbyteorder(">")),
        "unaligned": unaligned,
        "read-only": frozen,
    }


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
def test_no_byte_depends_on_the_layout(dtype: str) -> None:
    array = NOISE.astype(dtype)
    near = (array + array[::-1] / 8).astype(dtype)
    scores = np.random.default_rng(9).random(array.shape, np.float32)
    layouts, nears, scored = laid_out(array), laid_out(near), laid_out(scores)
    for text in SPELLINGS:
        plain = sent(text, array)
        held = sent(text, array, references={"x": near}, relevance={"x": scores})
        for how, other in layouts.items():
            out, bodies = sent(text, other)
            assert bodies == plain[1], (text, how)
            assert out.tobytes() == plain[0].tobytes(), (text, how)
            out, bodies = sent(
                text, other, references={"x": nears[how]}, relevance={"x": scored[how]}
            )
            assert bodies == held[1], (text, how)
            assert out.tobytes() == held[0].tobytes(), (text, how)


def test_a_wider_array_of_the_same_values_is_the_same() -> None:
    for text in SPELLINGS:
        for dtype in ("float32", "bfloat16"):
            array = TensorSpec("x", NOISE.shape, dtype).cast(NOISE)
            wide = sent(text, array.astype(np.float64), dtype)
            narrow = sent(text, array, dtype)
            assert wide[1] == narrow[1], text
            assert wide[0].tobytes() == narrow[0].tobytes(), text


def test_tensors_of_integers_are_exact_whatever_they_hold() -> None:
    for dtype in ("int8", "int16", "int64", "uint8", "uint32", "uint64"):
        limits = np.iinfo(dtype)
        array = np.array([[limits.min, limits.max, 1], [0, 3, limits.max // 2]], dtype)
        for text in SPELLINGS:
            for other in laid_out(array).values():
                assert sent(text, other)[0].tobytes() == array.tobytes(), text


@pytest.mark.parametrize("case", ["zeros", "constant", "smallest", "huge", "tiny", "itself"])
def test_any_finite_reference_will_do(case: str) -> None:
    """The last round's update may be anything, and what arrives must be sound all the same."""
    values = NOISE if case == "itself" else (FINITE | HUGE)[case]
    near = np.resize(values, NOISE.shape).astype(np.float32)
    for text in SPELLINGS:
        sent(text, NOISE, references={"x": near})
        sent(text, np.zeros_like(NOISE), references={"x": near})


@pytest.mark.parametrize("score", [0.0, 1.0, -2.0, 1e-45, 3e38, np.inf, np.nan])
def test_any_relevance_is_taken_or_refused(score: float) -> None:
    for part in (NOISE.size, 5):
        scores = np.zeros(NOISE.size, np.float32)
        scores[:part] = score
        for text in SPELLINGS:
            try:
                sent(text, NOISE, relevance={"x": scores.reshape(NOISE.shape)})
            except EncodeError as error:
                refused = error.tensor
            else:
                continue
            assert refused == "x", text


@pytest.mark.parametrize("value", [0.0, 1.0, 3e38, np.inf, np.nan])
def test_any_warm_start_will_do(value: float) -> None:
    """It may be left from another codec, another rank, or a client's damaged disk."""
    looking = [
        text
        for text in SPELLINGS
        if any(type(frame.codec).warmth is not Codec.warmth for frame in coded(text) or ())
    ]
    assert looking
    for shape in ((0,), (1,), (30, 2), (2, 30), (12, 3), (360,), (30, 12, 4)):
        warm = np.full(shape, value, np.float32)
        for text in looking:
            sent(text, NOISE, warm={"x": warm})
