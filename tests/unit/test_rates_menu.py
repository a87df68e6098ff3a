"""Menus of settings and the points that are measured for them."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from flowerpress.compression import (
    ConfigError,
    EncodeError,
    Manifest,
    UnknownNameError,
    encode_frames,
    preset,
)
from flowerpress.compression.rates.menu import MENUS, MOST_SETTINGS, measure, menu
from flowerpress.compression.rates.points import Points, mean


def model() -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(3)
    low = rng.standard_normal((40, 2)) @ rng.standard_normal((2, 30))
    return {
        "fc.weight": (low + rng.laplace(0, 0.3, (40, 30))).astype(np.float32),
        "fc.bias": rng.standard_normal(30).astype(np.float32),
        "dead": np.zeros((3, 5), np.float32),
        "steps": np.array(4),
        "half": rng.standard_normal((6, 9)).astype(np.float16),
        "scale": np.array(0.5, np.float32),
        "empty": np.zeros((0, 3), np.float32),
    }


@pytest.mark.parametrize("name", sorted(MENUS))
def test_every_named_menu_can_be_measured(name: str) -> None:
    arrays = model()
    settings = menu(name)
    assert settings == menu(list(settings))
    assert len(settings) <= MOST_SETTINGS
    manifest = Manifest.of(arrays)
    points = measure(manifest, arrays, settings, rng=np.random.default_rng(0))
    assert points.names == tuple(n for n in arrays if n != "steps")
    assert np.isfinite(points.bytes).all()
    assert not points.errors[points.names.index("dead")].any()
    assert points.errors[0].min() < points.errors[0].max()


def test_points_are_what_coding_gives() -> None:
    arrays = model()
    reference = {n: (x * 0.9).astype(np.float32) for n, x in arrays.items() if x.ndim == 2}
    settings = ["rd(relative=2,scope=tensor)", "int8", "rd(relative=0.5,scope=tensor)", "topk"]
    manifest = Manifest.of(arrays)
    points = measure(manifest, arrays, settings, rng=None, references=reference)
    for row, name in enumerate(points.names):
        one = Manifest.of({name: arrays[name]})
        x = arrays[name].astype(np.float64)
        assert points.sizes[row] == x.size
        assert points.energies[row] == pytest.approx((x**2).sum())
        for column, text in enumerate(settings):
            frames, decoded = encode_frames(
                one, preset(text).plan(one), {name: arrays[name]}, None, references=reference
            )
            lost = ((decoded[0].dense().astype(np.float64) - x.reshape(-1)) ** 2).sum()
            assert points.bytes[row, column] == len(frames[0].body)
            assert points.errors[row, column] == pytest.approx(lost, rel=1e-4)


def test_a_setting_that_cannot_code_a_tensor_is_infinite() -> None:
    arrays = {"large": np.array([1e6, 1.0], np.float32), "small": np.ones(2, np.float32)}
    told: list[tuple[int, int]] = []
    points = measure(
        Manifest.of(arrays),
        arrays,
        ["fp16", "none"],
        rng=None,
        progress=lambda done, of: told.append((done, of)),
    )
    assert np.isinf(points.bytes).tolist() == [[True, False], [False, False]]
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_blocks_of_rows_are_measured_by_themselves() -> None:
    arrays = model()
    manifest = Manifest.of(arrays)
    points = measure(manifest, arrays, ["none"], rng=None, groups={"fc.weight": 3, "fc.bias": 2})
    assert points.names[:5] == (
        *("fc.weight[0:14]", "fc.weight[14:27]", "fc.weight[27:40]"),
        *("fc.bias[0:15]", "fc.bias[15:30]"),
    )
    assert points.bytes[:5, 0].tolist() == [14 * 120, 13 * 120, 13 * 120, 60, 60]
    assert points.energies[3] == pytest.approx(float((arrays["fc.bias"][:15] ** 2).sum()))


def test_nan_is_refused_by_name() -> None:
    arrays = {"w": np.array([1, np.nan], np.float32)}
    with pytest.raises(EncodeError, match=r"'w'.*NaN"):
        measure(Manifest.of(arrays), arrays, ["none"], rng=None)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ([], "1 to 64"),
        (["int8"] * 2, "twice"),
        ([f"topk(density={i / 100})" for i in range(1, 66)], "1 to 64"),
        (["rd"], "together.*scope=tensor"),
        (["topk(scope=global)"], "together.*scope=tensor"),
        (["topk(density=7)"], "density"),
        ([3], "codec's text"),
    ],
)
def test_bad_menus(chosen: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        menu(chosen)


def test_unknown_menus_name_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'topk'"):
        menu("top-k")
    with pytest.raises(UnknownNameError, match="int8"):
        menu(["int9"])


def points(**changes: object) -> Points:
    given = {
        "names": ("a", "b"),
        "settings": ("none", "int8"),
        "bytes": np.array([[8.0, 2.0], [4.0, np.inf]]),
        "errors": np.array([[0.0, 1.0], [0.0, np.inf]]),
        "energies": np.array([4.0, 0.0]),
        "sizes": np.array([2, 1]),
    }
    return Points(**(given | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [
        {"names": ("a",)},
        {"names": ("a", "a")},
        {"settings": ("none", "none")},
        {"bytes": np.array([[8.0, -1.0], [4.0, np.inf]])},
        {"bytes": np.array([[8.0, np.nan], [4.0, np.inf]])},
        {"errors": np.zeros((2, 2))},
        {"energies": np.array([np.inf, 0.0])},
        {"energies": np.zeros(3)},
        {"sizes": np.zeros((2, 1))},
    ],
)
def test_points_that_do_not_fit_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="points"):
        points(**changes)


def test_points_of_a_choice_and_means() -> None:
    own = points()
    assert own.chosen(np.array([1, 0])) == (6.0, 0.25)
    assert points(energies=np.zeros(2)).chosen(np.array([0, 0])) == (12.0, 0.0)
    assert own.of(["b"]).sizes.tolist() == [1]
    other = points(bytes=np.array([[4.0, 4.0], [2.0, np.inf]]))
    both = mean([own, other])
    assert both.bytes.tolist() == [[6.0, 3.0], [3.0, float("inf")]]
    assert both.errors.tolist() == own.errors.tolist()
    for bad in ([], [own, points(names=("a", "c"))], [own, points(sizes=np.array([2, 2]))]):
        with pytest.raises(ConfigError, match="points"):
            mean(bad)
    with pytest.raises(ConfigError, match="measured for c"):
        own.of(["c"])
