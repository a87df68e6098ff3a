"""The rate-distortion codec: errors and budgets that hold, references, odd tensors, threads."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from flowerpress.compression import (
    ConfigError,
    Context,
    Decoded,
    EncodeError,
    FormatError,
    Frame,
    Manifest,
    TensorSpec,
    WireError,
    decode_frames,
    encode_frames,
    preset,
    read_recipe,
    recipe,
    warmth,
)
from flowerpress.compression.frames import CODECS
from flowerpress.compression.rd.codec import RateDistortion
from flowerpress.compression.rd.control import Budget, Controlled
from flowerpress.protos.envelope import Kind, Update, pack

QUICK = settings(deadline=None, max_examples=60)
Arrays = dict[str, NDArray[Any]]
SHAPES = [(), (1,), (7,), (500,), (1, 40), (40, 1), (30, 50), (90, 3), (3, 90), (16, 9, 3, 3)]
SHAPES += [(6, 8, 5, 5), (8, 16, 7), (12, 3, 3, 3), (5, 8, 1, 12), (33, 65)]


def noise(shape: tuple[int, ...], seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).laplace(size=shape).astype(np.float32)


def thin(m: int, n: int, rank: int = 4, seed: int = 0) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    falling = rng.standard_normal((m, rank)) * 0.7 ** np.arange(rank)
    return np.asarray(falling @ rng.standard_normal((rank, n)), np.float32)


def update(seed: int = 0) -> Arrays:
    """Several tensors, as an update of a small network has them."""
    conv = np.ascontiguousarray(
        thin(9 * 48, 32, seed=seed).reshape(3, 3, 48, 32).transpose(2, 3, 0, 1)
    )
    return {
        "conv": (conv + 0.4 * noise(conv.shape, seed + 1)).astype(np.float32) / 100,
        "conv.bias": noise((48,), seed + 2) / 50,
        "hidden": (thin(100, 150, seed=seed + 3) + 0.5 * noise((100, 150), seed + 4)) / 200,
        "norm": noise((100,), seed + 5) / 30,
        "head": noise((10, 100), seed + 6) / 40,
        "steps": np.array([3, 4]),
    }


def there_and_back(
    x: NDArray[Any],
    step: float,
    reference: NDArray[Any] | None = None,
    warm: NDArray[np.float32] | None = None,
) -> tuple[bytes, NDArray[np.float32]]:
    spec = TensorSpec("w", x.shape, x.dtype.name)
    codec = RateDistortion(step)
    body = codec.encode(x, spec, Context(reference=reference, warm=warm))
    got = codec.decode(memoryview(body), spec, reference)
    assert got.is_finite()
    dense = got.dense()
    assert dense.dtype == np.float32
    assert dense.shape == (x.size,)
    return body, dense.reshape(x.shape)


def sent(text: str, arrays: Arrays, **more: Any) -> tuple[list[Frame], list[Decoded]]:
    manifest = Manifest.of(arrays)
    return encode_frames(manifest, preset(text).plan(manifest), arrays, None, **more)


def blob(frames: list[Frame], arrays: Arrays) -> int:
    """The length of an update with long numbers in its header."""
    digest = Manifest.of(arrays).digest
    most = 2**64 - 1
    return len(pack(Update(Kind.DELTA, most, 10**6, most, 10**6, digest, frames, bytes(16))))


def nmse(arrays: Arrays, decoded: Iterable[Decoded]) -> float:
    lost = total = 0.0
    for x, got in zip(arrays.values(), decoded, strict=True):
        if x.dtype.kind == "f":
            wide = x.astype(np.float64).reshape(-1)
            lost += float(((got.dense() - wide) ** 2).sum())
            total += float((wide**2).sum())
    return lost / total


# --- errors -----------------------------------------------------------------------------------


@st.composite
def tensors(draw: st.DrawFn, largest: int = 30) -> NDArray[np.float32]:
    shape = draw(st.sampled_from(SHAPES))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    x = rng.laplace(size=shape) * draw(st.sampled_from([0.0, 0.02, 1.0]))
    if draw(st.booleans()) and len(shape) > 1:
        rows = rng.standard_normal((shape[0], 2))
        x += (rows @ rng.standard_normal((2, x.size // shape[0]))).reshape(shape)
    if draw(st.booleans()):
        x *= rng.random(shape) < 0.1
    if draw(st.booleans()) and shape:
        x[rng.random(shape[0]) < 0.5] = 0
    return np.asarray(x * 10.0 ** draw(st.integers(-20, largest)), np.float32)


@given(tensors(), st.sampled_from([1e-4, 0.01, 0.1, 0.5, 1.0, 3.0, 30.0]))
@settings(deadline=None, max_examples=250)
def test_errors_are_bounded(x: NDArray[np.float32], relative: float) -> None:
    """Two steps for an element, a quarter of a squared step in the mean.

    Points of both quantizers are half a step from any value. A search may still give up a value: a
    level costs at most 20 bits for itself and for each further one, 0.09 squared steps each, and a
    value above two steps is worth more than that. A tensor may be given up, all of it, where its
    energy is not worth the bytes of a body, at least nine or so.
    """
    wide = x.astype(np.float64)
    step = relative * float(np.sqrt((wide**2).mean())) or 1.0
    body, got = there_and_back(x, step)
    # Finer steps than float32 has are coarsened.
    step = max(step, float(np.abs(wide).max(initial=0)) * 2**-22)
    error = (got - wide) / step
    energy = float((wide**2).sum()) / step**2
    assert float((error**2).sum()) + 0.09 * 8 * len(body) <= energy * 1.02 + 1
    if body:
        assert np.abs(error).max(initial=0) <= 2
        assert float((error**2).sum()) <= x.size / 4 + 2
    else:
        assert energy <= x.size / 4 + 20


def test_errors_at_high_rates() -> None:
    x = noise((200, 200))
    for step in (0.3, 0.03, 0.003):
        _, got = there_and_back(x, step)
        assert 0.055 < float((((got - x).astype(np.float64) / step) ** 2).mean()) < 0.07


def test_bytes_and_errors_follow_the_step() -> None:
    x = update()["conv"]
    steps = [0.001, 0.003, 0.01, 0.03, 0.1]
    made = [there_and_back(x, step) for step in steps]
    sizes = [len(body) for body, _ in made]
    errors = [float(((got - x) ** 2).sum()) for _, got in made]
    assert sizes == sorted(sizes, reverse=True)
    assert errors == sorted(errors)


def test_low_rank_is_worth_something() -> None:
    x = thin(80, 120, rank=3)
    plain, _ = there_and_back(
        np.random.default_rng(0).permutation(x.reshape(-1)).reshape(x.shape), 1
    )
    body, _ = there_and_back(x, 1)
    assert len(body) < len(plain) / 4


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_the_scale_of_a_tensor_changes_little(dtype: str) -> None:
    x = noise((40, 60)).astype(np.float64)
    powers = (-3, 0, 3) if dtype == "float16" else (-38, -20, 0, 29)
    for power in powers:
        scaled = (x * 10.0**power).astype(dtype)
        frames, decoded = sent("rd(relative=0.3)", {"w": scaled})
        if power == -38:  # below the smallest step
            assert not decoded[0].dense().any()
            assert not frames[0].body
        else:
            assert 0.004 < nmse({"w": scaled}, decoded) < 0.007


def test_zeros_stay_zeros() -> None:
    for shape in ((0,), (3, 0), (5, 7), ()):
        body, got = there_and_back(np.zeros(shape, np.float32), 1e-30)
        assert body == b""
        assert not got.any()
    x = noise((50, 40))
    x[7:30] = 0
    x[:, 3:20] = 0
    _, got = there_and_back(x, 0.5)
    assert not got[x == 0].any()


def test_any_layout_gives_the_same_bytes() -> None:
    x = noise((30, 40))
    wide = np.zeros((60, 120), np.float32)
    wide[::2, ::3] = x
    for other in (np.asfortranarray(x), wide[::2, ::3], x.astype(np.float64)):
        assert there_and_back(other, 0.7)[0] == there_and_back(x, 0.7)[0]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(value: float) -> None:
    x = noise((20, 30))
    x[3, 4] = value
    for text in ("rd", "rd(step=1)", "rd(target_bytes=300)"):
        with pytest.raises(EncodeError, match="'w': NaN or infinity"):
            sent(text, {"w": x})
    with pytest.raises(EncodeError, match="does not fit a float32"):
        sent("rd", {"w": np.full((2, 3), 1e300)})
    with pytest.raises(EncodeError, match="is sent exactly"):
        RateDistortion(1.0).encode(np.arange(3), TensorSpec("w", (3,), "int64"), Context())


# --- budgets ----------------------------------------------------------------------------------


def test_steps_are_those_that_were_asked_for() -> None:
    arrays = update()
    frames, _ = sent("rd(step=0.01)", arrays)
    steps = {f.codec.step for f in frames if isinstance(f.codec, RateDistortion)}
    assert steps == {float(np.float32(0.01))}
    floats = [x.astype(np.float64) for x in arrays.values() if x.dtype.kind == "f"]
    rms = np.sqrt(sum((x**2).sum() for x in floats) / sum(x.size for x in floats))
    frames, _ = sent("rd(relative=2)", arrays)
    assert isinstance(frames[0].codec, RateDistortion)
    assert frames[0].codec.step == pytest.approx(2 * rms, rel=1e-5)


@st.composite
def updates(draw: st.DrawFn) -> Arrays:
    many = draw(st.sampled_from([1, 1, 2, 6]))
    return {str(i): draw(tensors(6)) for i in range(many)}


@given(updates(), st.floats(1e-5, 0.999))
@QUICK
def test_an_error_budget_is_never_exceeded(arrays: Arrays, budget: float) -> None:
    if not any(x.any() for x in arrays.values()):
        return
    _, decoded = sent(f"rd(max_nmse={budget})", arrays)
    assert nmse(arrays, decoded) <= budget * (1 + 1e-6)


@given(updates(), st.integers(400, 20000))
@QUICK
def test_a_budget_of_bytes_is_never_exceeded(arrays: Arrays, budget: int) -> None:
    frames, decoded = sent(f"rd(target_bytes={budget})", arrays)
    assert blob(frames, arrays) <= budget
    for index, again in decode_frames(Manifest.of(arrays), frames):
        assert again.dense().tobytes() == decoded[index].dense().tobytes()


@pytest.mark.parametrize("seed", [0, 100])
def test_budgets_are_used(seed: int) -> None:
    arrays = update(seed)
    for target in (1500, 3000, 8000, 20000):
        frames, _ = sent(f"rd(target_bytes={target})", arrays)
        assert target * 0.98 - 60 < blob(frames, arrays) <= target
    for most in (0.01, 0.1, 0.3):
        _, decoded = sent(f"rd(max_nmse={most})", arrays)
        assert most * 0.9 < nmse(arrays, decoded) <= most * (1 + 1e-6)
    assert 0.19 < nmse(arrays, sent("rd", arrays)[1]) <= 0.2 * (1 + 1e-6)


@pytest.mark.parametrize("budget", ["max_nmse=0.2", "target_bytes=900"])
@pytest.mark.parametrize("largest", [1e20, 1e37])
def test_budgets_of_huge_tensors(budget: str, largest: float) -> None:
    x = thin(30, 50) * np.float32(largest)
    frames, decoded = sent(f"rd({budget})", {"w": x})
    assert blob(frames, {"w": x}) <= 900 or budget != "target_bytes=900"
    assert nmse({"w": x}, decoded) <= 0.2


@pytest.mark.parametrize("target", [1, 20, 60])
def test_a_budget_below_an_empty_update_is_refused(target: int) -> None:
    with pytest.raises((ConfigError, EncodeError), match="bytes"):
        sent(f"rd(target_bytes={target})", update())


def test_an_error_budget_costs_little_more_than_a_step_that_keeps_it() -> None:
    """Also where a rank more or less makes errors jump over the budget."""
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((400, 2)) * [1, 0.35]) @ rng.standard_normal((2, 900))
    arrays = {"w": (x + 0.15 * rng.standard_normal(x.shape)).astype(np.float32)}
    step, decoded = sent("rd(relative=11)", arrays)
    assert nmse(arrays, decoded) < 0.08
    for most in (0.088, 0.1, 0.12):
        frames, _ = sent(f"rd(max_nmse={most})", arrays)
        assert len(frames[0].body) < 1.6 * len(step[0].body)


def test_weights_divide_steps() -> None:
    arrays = {"a": noise((50, 60)), "b": noise((40, 30), 1), "c": noise((9,), 2)}
    specs = Manifest.of(arrays).specs
    contexts = [Context()] * 3
    rule = Controlled(Budget(step=0.5), (("b", 16.0), ("c", 0.25)))
    coded = rule.encode(specs, list(arrays.values()), contexts)
    assert [each.codec.step for each in coded] == [0.5, 0.125, 1.0]  # type: ignore[attr-defined]
    for each, (name, x) in zip(coded, arrays.items(), strict=True):
        alone, _ = there_and_back(x, {"a": 0.5, "b": 0.125, "c": 1.0}[name])
        assert each.body == alone
    limited = Controlled(Budget(max_nmse=0.05), (("b", 9.0),))
    decoded = [
        each.codec.decode(memoryview(each.body), spec)
        for each, spec in zip(
            limited.encode(specs, list(arrays.values()), contexts), specs, strict=True
        )
    ]
    assert 0.045 < nmse(arrays, decoded) <= 0.05 * (1 + 1e-6)
    own = [nmse({n: x}, [got]) for (n, x), got in zip(arrays.items(), decoded, strict=True)]
    assert own[1] < own[0] / 4
    for bad in (0.0, -1.0, float("inf")):
        with pytest.raises(ConfigError, match="weight of 'b'"):
            Controlled(Budget(step=1), (("b", bad),)).encode(specs, list(arrays.values()), contexts)


def test_budgets_that_make_no_sense() -> None:
    for text in ("step=0", "step=-1", "step=inf", "step=1e-31", "relative=0", "max_nmse=0"):
        with pytest.raises(ConfigError):
            preset(f"rd({text})").plan(Manifest.of({"w": noise((3,))}))
    for text in ("max_nmse=1", "target_bytes=0", "step=1, relative=1", "step=1, target_bytes=9"):
        with pytest.raises(ConfigError):
            preset(f"rd({text})").plan(Manifest.of({"w": noise((3,))}))


def test_models_without_anything() -> None:
    models: list[Arrays] = [{}, {"n": np.arange(5)}, {"w": np.zeros((4, 5), np.float32)}]
    for arrays in models:
        for text in (
            "rd",
            "rd(step=1)",
            "rd(relative=1)",
            "rd(max_nmse=0.1)",
            "rd(target_bytes=500)",
        ):
            _, decoded = sent(text, arrays)
            for x, got in zip(arrays.values(), decoded, strict=True):
                np.testing.assert_array_equal(got.dense(), x.reshape(-1))


def test_recipes() -> None:
    for step in (1e-30, 0.1, 3.0, 3e38):
        codec = RateDistortion(step)
        assert read_recipe(memoryview(recipe(codec)), CODECS) == codec
    for bad in (b"\x00\x00\x00\x00", b"\x00\x00\x80\xbf", b"\x00\x00\xc0\x7f", b"\x00\x00\x80\x7f"):
        with pytest.raises(WireError):
            read_recipe(memoryview(b"\x02" + bad), CODECS)


# --- references and warm starts ----------------------------------------------------------------


def test_a_reference_saves_bytes_and_must_be_the_same() -> None:
    x = thin(90, 110)
    near = (x + 0.2 * noise(x.shape)).astype(np.float32)
    body, got = there_and_back(x, 0.5, near)
    plain, other = there_and_back(x, 0.5)
    assert len(body) < 0.7 * len(plain)
    assert float(((got - x) ** 2).mean()) < 1.5 * float(((other - x) ** 2).mean())

    codec, spec = RateDistortion(0.5), TensorSpec("w", x.shape)
    changed = near.copy()
    changed[-1, -1] = np.nextafter(changed[-1, -1], np.float32(9))
    for wrong in (None, changed, np.zeros_like(near), -near):
        with pytest.raises(FormatError, match=r"'w'.*reference"):
            codec.decode(memoryview(body), spec, wrong)
    # Whoever has a reference needs none for a body that was made without.
    assert codec.decode(memoryview(plain), spec, near).dense().tobytes() == other.tobytes()


@given(tensors(), st.integers(0, 99))
@QUICK
def test_any_reference_leaves_errors_bounded(x: NDArray[np.float32], seed: int) -> None:
    step = float(np.sqrt((x.astype(np.float64) ** 2).mean())) or 1.0
    rng = np.random.default_rng(seed)
    near = (x + rng.choice([0.0, 0.1, 10.0]) * step * rng.standard_normal(x.shape)).astype(
        np.float32
    )
    body, got = there_and_back(x, step, near)
    assert not body or (np.abs(got - x.astype(np.float64)) / step).max(initial=0) <= 2
    assert len(body) <= len(there_and_back(x, step)[0]) * 1.1 + 8


def test_a_useless_reference_is_left_out() -> None:
    x = thin(60, 70)
    for other in (np.zeros_like(x), np.full_like(x, 1e-38), np.full_like(x, np.inf)):
        assert there_and_back(x, 0.5, other)[0] == there_and_back(x, 0.5)[0]


def test_a_warm_start_changes_no_meaning() -> None:
    arrays = {"w": (thin(90, 110) + 0.1 * noise((90, 110))).astype(np.float32)}
    frames, decoded = sent("rd(step=1)", arrays)
    warm = warmth(Manifest.of(arrays), frames)
    assert warm["w"].shape[1] == 110
    again, other = sent("rd(step=1)", arrays, warm=warm)
    assert nmse(arrays, other) < 1.1 * nmse(arrays, decoded)
    assert len(again[0].body) < 1.1 * len(frames[0].body)
    ((_, plain),) = decode_frames(Manifest.of(arrays), again)  # a decoder needs none
    assert plain.dense().tobytes() == other[0].dense().tobytes()
    bad = np.zeros((3, 110), np.float32)
    assert nmse(arrays, sent("rd(step=1)", arrays, warm={"w": bad})[1]) < 1.2 * nmse(
        arrays, decoded
    )


# --- decoded ----------------------------------------------------------------------------------


@given(tensors(), st.sampled_from([0.1, 1.0, 4.0]), st.sampled_from([1.0, -1.0, 0.3, 1 / 3]))
@QUICK
def test_adding_is_adding_all_elements(
    x: NDArray[np.float32], relative: float, weight: float
) -> None:
    step = relative * float(np.sqrt((x.astype(np.float64) ** 2).mean())) or 1.0
    spec, codec = TensorSpec("w", x.shape), RateDistortion(step)
    got = codec.decode(memoryview(codec.encode(x, spec, Context())), spec)
    for dtype in (np.float32, np.float64):
        total: NDArray[Any] = np.random.default_rng(1).standard_normal(x.size).astype(dtype)
        values: NDArray[Any] = got.dense().astype(dtype)
        want = total + values * dtype(weight)
        got.add_to(total, weight)
        assert total.tobytes() == want.tobytes()
    strided = np.zeros((x.size, 2))[:, 0]
    got.add_to(strided, weight)
    np.testing.assert_array_equal(strided, got.dense().astype(np.float64) * weight)


def test_threads_decode_the_same() -> None:
    """Kernels release the interpreter, and bases of a reference are kept for all threads."""
    x = thin(90, 110)
    jobs = []
    for seed, step in itertools.product(range(4), (0.1, 0.5, 2.0)):
        near = (x + 0.2 * noise(x.shape, seed)).astype(np.float32)
        y = (x + 0.3 * noise(x.shape, seed + 50)).astype(np.float32)
        spec, codec = TensorSpec("w", x.shape), RateDistortion(step)
        jobs.append((codec, codec.encode(y, spec, Context(reference=near)), near))

    def decoded(job: tuple[RateDistortion, bytes, NDArray[np.float32]]) -> bytes:
        codec, body, near = job
        got = codec.decode(memoryview(body), TensorSpec("w", x.shape), near.copy())
        return got.dense().tobytes()

    alone = [decoded(job) for job in jobs]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(decoded, jobs * 3)) == alone * 3


def test_threads_encode_the_same() -> None:
    arrays = [update(seed)["conv"] for seed in range(6)]
    alone = [there_and_back(x, 0.01)[0] for x in arrays]
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(lambda x: there_and_back(x, 0.01)[0], arrays)) == alone
