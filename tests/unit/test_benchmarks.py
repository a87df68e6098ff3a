"""The benchmarks' own arithmetic: what they pair, search, interpolate and compare."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.apart import Apart, encoded
from benchmarks.entropies import ideal_bits
from benchmarks.files import Point, Update, large_only, nmse, read_points, read_updates
from benchmarks.learning import Recipe, rounds
from benchmarks.matching import match
from benchmarks.measuring import Row, measure, split_codecs, try_codec
from benchmarks.models import Characters, ManyCharacters, PooledCifar10, WideCifar10, Words
from benchmarks.picture import draw
from benchmarks.sweeping import Curve, interpolate
from flowerpress.compression import Manifest
from flowerpress.simulations.tasks.digits import Digits


@pytest.fixture(scope="module")
def apart() -> Iterator[Apart]:
    with Apart() as other:
        yield other


@pytest.fixture(scope="module")
def update() -> Update:
    rng = np.random.default_rng(5)
    arrays = {
        "weight": rng.laplace(0, 1e-3, (300, 100)).astype(np.float32),
        "bias": rng.normal(0, 1e-2, 10).astype(np.float32),
    }
    return Update("made_up", arrays, {})


def test_an_update_has_its_own_reference_or_that_of_its_round(tmp_path: Path) -> None:
    for index, name in enumerate(
        ("a_round1", "a_round1_previous_global", "b_client0", "b_previous_global", "c")
    ):
        np.savez(tmp_path / f"{name}.npz", allow_pickle=False, w=np.full(3, index, np.float32))
    found = {each.name: each for each in read_updates(tmp_path)}
    assert list(found) == ["a_round1", "b_client0", "c"]
    assert found["a_round1"].references["w"][0] == 1
    assert found["b_client0"].references["w"][0] == 3
    assert not found["c"].references
    assert not any(each.references for each in read_updates(tmp_path, previous=False))


def test_a_folder_without_updates_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="holds no"):
        list(read_updates(tmp_path))


def test_points_are_grouped_by_curve_and_sorted(tmp_path: Path) -> None:
    file = tmp_path / "points.csv"
    file.write_text("file,lambda,qp,bits_per_param,nmse\nu,1.0,-30,1,0.2\nu,1.0,-32,2,0.1\n")
    (curve,) = read_points(file)["u"].items()
    assert curve[0] == "NNCodec lambda=1"
    assert [(point.nmse, point.qp) for point in curve[1]] == [(0.1, -32), (0.2, -30)]
    file.write_text("file,bits\n")
    with pytest.raises(SystemExit, match="bits_per_param, nmse"):
        read_points(file)


@given(power=st.floats(-3, -0.1), error=st.floats(0.01, 0.8))
def test_interpolation_is_exact_for_powers(power: float, error: float) -> None:
    points = [Point("p", x**power, x) for x in (0.01, 0.03, 0.1, 0.25, 0.4, 0.8)]
    found = interpolate(points, error)
    assert found is not None
    assert math.isclose(found, error**power, rel_tol=1e-9)


def test_interpolation_passes_over_points_that_another_one_beats() -> None:
    points = [Point("p", 4.0, 0.1), Point("p", 5.0, 0.15), Point("p", 1.0, 0.4)]
    found = interpolate(points, 0.2)
    assert found is not None
    assert math.isclose(found, 2.0)


def test_nothing_is_extrapolated() -> None:
    points = [Point("p", 2.0, 0.1), Point("p", 1.0, 0.2)]
    assert interpolate(points, 0.09) is None
    assert interpolate(points, 0.21) is None
    assert interpolate([], 0.1) is None


def test_commas_within_parentheses_do_not_part_codecs() -> None:
    assert split_codecs("none, qsgd(levels=1,norm=l2),stc") == [
        "none",
        "qsgd(levels=1,norm=l2)",
        "stc",
    ]


def test_another_process_decodes_the_same(update: Update, apart: Apart) -> None:
    bits, error = try_codec(update, "none", apart)
    assert error == 0
    assert 32 < bits < 33
    with pytest.raises(RuntimeError, match="FormatError: magic"):
        apart.decode(b"nothing of this kind", Manifest.of(update.arrays), {})


def test_a_row_has_memory_and_entropy_where_they_can_be_told(update: Update, apart: Apart) -> None:
    row = measure(update, "int8", apart, repeat=1, memory=True)
    assert row.entropy_bits is not None
    assert 2 < row.entropy_bits < row.bits_per_param < 9
    assert 0 < row.nmse < 1e-2
    if sys.platform == "linux":
        assert row.encode_memory is not None
        assert row.encode_memory < 100
    lean = measure(update, "int8", apart, repeat=1, memory=False)
    assert lean.encode_memory is None
    assert (lean.bytes, lean.nmse) == (row.bytes, row.nmse)
    assert isinstance(lean, Row)


def test_entropy_is_left_blank_for_what_is_no_pipeline(update: Update) -> None:
    manifest = Manifest.of(update.arrays)
    (frame, _) = encoded("int8", manifest, update.arrays, {})

    class Frameless:
        codec = object()
        body = frame.body

    assert ideal_bits(Frameless(), manifest.specs[0], update.arrays["weight"], 0) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("target", [0.1, 0.35])
def test_a_curve_finds_the_parameter_for_an_error(
    update: Update, apart: Apart, target: float
) -> None:
    found = Curve(update, "topk(density=*)", apart).at(target)
    assert found is not None
    point, density = found
    assert abs(point.nmse / target - 1) < 0.02
    assert 0 < density < 1
    assert Curve(update, "topk(density=*)", apart).at(1.5) is None


def test_a_codec_matches_itself(update: Update, apart: Apart) -> None:
    theirs = Curve(large_only(update), "topk(density=*)", apart).span(0.02, 0.5)
    found = match(Curve(large_only(update), "topk(density=*)", apart), theirs, (0.05, 0.2, 0.4))
    assert [each.nmse for each in found] == [0.05, 0.2, 0.4]
    for each in found:
        assert abs(each.ratio - 1) < 0.02


def test_error_counts_all_tensors_and_small_ones_can_be_left_out(update: Update) -> None:
    nothing = {name: np.zeros_like(array) for name, array in update.arrays.items()}
    assert nmse(update.arrays, nothing) == 1
    assert list(large_only(update).arrays) == ["weight"]


def test_a_picture_is_drawn_with_and_without_references(tmp_path: Path) -> None:
    curve = [Point("p", 2.0, 0.1), Point("p", 1.0, 0.2), Point("p", 32.0, 0.0)]
    file = tmp_path / "picture.png"
    draw(file, {"u": {"p": curve}, "v": {"q": curve[:1]}}, {"u": {"peer": curve}})
    assert file.read_bytes().startswith(b"\x89PNG")


def test_rounds_hand_out_the_average_of_the_round_before() -> None:
    recipe = Recipe(Digits, clients=1, saved=(0, 1), steps=2, batch=8)
    first, second = rounds(recipe, None, seed=3)
    assert (first[0], second[0]) == (0, 1)
    assert first[2] is None
    assert second[2] is not None
    for name, change in first[1].items():
        assert np.array_equal(second[2][name], change)
        assert change.dtype == np.float32
    (again, _) = rounds(recipe, None, seed=3)
    assert all(np.array_equal(again[1][name], change) for name, change in first[1].items())


def test_models_have_the_sizes_that_they_claim() -> None:
    sizes = [
        sum(each.numel() for each in task(None).build().parameters())
        for task in (PooledCifar10, WideCifar10, Characters, ManyCharacters)
    ]
    assert sizes == [1_084_202, 1_103_402, 828_416, 10_752_768]


def test_words_that_a_client_never_saw_do_not_change(tmp_path: Path) -> None:
    words = " ".join(f"{a}{b}" for a in ("shall", "mine", "good") for b in ("ow", "s", "ly", "er"))
    (tmp_path / "input.txt").write_text(f"ROLE:\n{(words + chr(10)) * 40}\n")
    recipe = Recipe(Words, clients=1, saved=(0,), steps=2, batch=4, optimizer="plain", lr=1.0)
    ((_, change, _),) = rounds(recipe, tmp_path, seed=0)
    touched = np.flatnonzero(np.abs(change["embedding.weight"]).sum(1))
    assert 0 < touched.size < 60
    assert change["head.weight"].any()
