"""From points and a budget to a plan."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from flowerpress.compression import ConfigError, Manifest, UnknownNameError, encode_frames
from flowerpress.compression.codec import Context
from flowerpress.compression.rates.menu import measure, menu
from flowerpress.compression.rates.message import message_bytes
from flowerpress.compression.rates.plan import RatePlan
from flowerpress.compression.rates.points import Points
from flowerpress.compression.rates.solve import ALLOCATORS, solve


def model() -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(5)
    low = rng.standard_normal((96, 3)) @ rng.standard_normal((3, 80))
    return {
        "conv": rng.laplace(0, 1, (16, 8, 3, 3)).astype(np.float32),
        "bias": rng.standard_normal(16).astype(np.float32),
        "fc": (low + rng.laplace(0, 0.2, (96, 80))).astype(np.float32),
        "steps": np.array([1, 2]),
        "none": np.zeros((0, 3), np.float32),
    }


ARRAYS = model()
MANIFEST = Manifest.of(ARRAYS)


def measured(name: str, **groups: int) -> Points:
    rng = np.random.default_rng(0)
    return measure(MANIFEST, ARRAYS, menu(name), rng=rng, groups=groups)


def message(plan: RatePlan) -> int:
    codecs = plan.plan(MANIFEST)
    coded = codecs.encode(
        MANIFEST,
        [ARRAYS[spec.name] for spec in MANIFEST.specs],
        [Context(np.random.default_rng(0)) for _ in MANIFEST.specs],
    )
    return message_bytes(coded)


@pytest.mark.parametrize("allocator", ALLOCATORS)
@pytest.mark.parametrize("name", ["formats", "integers", "qsgd"])
def test_messages_of_formats_fit_and_are_as_predicted(name: str, allocator: str) -> None:
    points = measured(name)
    for target in (5000, 7500, 12_000):
        plan = solve(MANIFEST, points, allocator=allocator, target_bytes=target)
        assert plan.target_bytes == target
        assert plan.allocator == allocator
        assert plan.menu == menu(name)
        assert [entry.name for entry in plan.entries] == list(ARRAYS)
        assert message(plan) <= target
        bodies = sum(entry.bytes or 0 for entry in plan.entries)
        assert bodies <= message(plan) <= bodies + 300


@pytest.mark.parametrize("name", ["rd", "stc", "mixed"])
def test_scaled_menus_meet_their_target(name: str) -> None:
    for target in (900, 1700):
        plan = solve(MANIFEST, measured(name), target_bytes=target)
        assert 0.97 * target <= message(plan) <= target


def test_errors_are_as_predicted() -> None:
    plan = solve(MANIFEST, measured("integers"), max_nmse=0.003)
    frames, decoded = encode_frames(MANIFEST, plan.plan(MANIFEST), ARRAYS, None)
    lost = energy = 0.0
    for entry, frame, value in zip(plan.entries, frames, decoded, strict=True):
        x = ARRAYS[entry.name].reshape(-1).astype(np.float64)
        if entry.name == "steps":
            assert (entry.codec, entry.error) == ("none", 0)
            continue
        own = float(((value.dense() - x) ** 2).sum())
        assert entry.bytes == len(frame.body)
        assert entry.error == pytest.approx(own / max((x**2).sum(), 1e-9), rel=1e-3)
        lost, energy = lost + own, energy + float((x**2).sum())
    assert 0.0005 < lost / energy <= 0.003


def test_fixed_tensors_keep_their_codec_and_their_bytes() -> None:
    plan = solve(
        MANIFEST,
        measured("integers"),
        target_bytes=9000,
        fixed={"bias": "fp16", "conv": "int8(scale=tensor)"},
        weights={"fc": 3.0},
    )
    assert (plan.texts["bias"], plan.texts["conv"]) == ("fp16", "int8(scale=tensor)")
    assert [entry.sensitivity for entry in plan.entries if entry.name == "fc"] == [3.0]
    assert message(plan) <= 9000
    alone = solve(MANIFEST, measured("integers"), target_bytes=9000)
    assert alone.entries[2].sensitivity is None


def test_blocks_of_rows_become_groups() -> None:
    plan = solve(MANIFEST, measured("integers", fc=3), target_bytes=6500)
    groups = plan.entries[2].groups
    assert len(groups) == 3
    assert message(plan) <= 6500
    points = measured("integers", fc=3)
    names = [n for n in points.names if n != "fc[32:64]"]
    with pytest.raises(ConfigError, match="blocks of 'fc'"):
        solve(MANIFEST, points.of(names), target_bytes=6500)


def test_a_plan_can_be_written_and_read() -> None:
    plan = solve(MANIFEST, measured("rd"), target_bytes=3000)
    assert RatePlan.from_json(plan.to_json()) == plan


def test_what_solve_refuses() -> None:
    points = measured("formats")
    with pytest.raises(ConfigError, match="at least"):
        solve(MANIFEST, points, target_bytes=1000)
    with pytest.raises(ConfigError, match="exactly one"):
        solve(MANIFEST, points)
    with pytest.raises(ConfigError, match="exactly one"):
        solve(MANIFEST, points, target_bytes=9000, max_nmse=0.1)
    with pytest.raises(ConfigError, match="measured for 'fc'"):
        solve(MANIFEST, points.of(["conv", "bias", "none"]), target_bytes=9000)
    with pytest.raises(UnknownNameError, match="'fd'"):
        solve(MANIFEST, points, target_bytes=9000, fixed={"fd": "fp16"})
    with pytest.raises(UnknownNameError, match="lambda"):
        solve(MANIFEST, points, target_bytes=9000, allocator="best")


def test_a_target_below_what_is_scaled_is_left_to_the_encoder() -> None:
    plan = solve(MANIFEST, measured("stc"), target_bytes=260)
    assert message(plan) <= 260
