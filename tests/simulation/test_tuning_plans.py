"""Budgets as people write them, plans from a profile, fronts, heuristics, and the report."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from flowerpress.compression import ConfigError, UnknownNameError
from flowerpress.compression.rates.budget import BudgetSpec, least_bytes
from flowerpress.compression.rates.plan import RatePlan
from flowerpress.compression.rates.policy import Policy
from flowerpress.compression.rates.solve import ALLOCATORS
from flowerpress.simulations.config import load_config
from flowerpress.simulations.tuning.folder import TuningFolder
from flowerpress.simulations.tuning.front import FrontPoint, front, read_csv, targets, write_csv
from flowerpress.simulations.tuning.profile import Profile
from flowerpress.simulations.tuning.quantities import bits_per_second, byte_count
from flowerpress.simulations.tuning.report import write_report
from flowerpress.simulations.tuning.solving import (
    exhausted,
    fixed_codecs,
    predicted,
    read_budget,
    solve_profile,
    target_bytes,
)
from flowerpress.simulations.tuning.tables import (
    PLAN_COLUMNS,
    bytes_saved,
    exhausted_note,
    front_cells,
    plan_cells,
    plan_table,
    profile_cells,
    significant,
)
from flowerpress.simulations.tuning.verifying import (
    common_bytes,
    config_words,
    plan_verification,
    write_uplinks,
)
from tests.simulation.small_tuning import made_profile

BYTES = BudgetSpec(target_bytes=500)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("8192", 8192),
        ("8k", 8000),
        ("8KB", 8000),
        ("8KiB", 8192),
        ("8Ki", 8192),
        ("1.5 MiB", 1_572_864),
        ("2e3", 2000),
        (".5k", 500),
    ],
)
def test_sizes_as_people_write_them(text: str, count: int) -> None:
    assert byte_count(text, "--x") == count


@pytest.mark.parametrize(
    ("text", "rate"), [("64000", 64e3), ("64k", 64e3), ("2M", 2e6), ("1.5 Mbps", 1.5e6), ("9", 9)]
)
def test_rates_as_people_write_them(text: str, rate: float) -> None:
    assert bits_per_second(text, "--x") == rate


@pytest.mark.parametrize("text", ["", "k", "-1", "0", "1x", "1e99", "nan", "inf", "8 K K", "1,000"])
def test_what_is_no_size_or_rate_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^--x "):
        byte_count(text, "--x")
    with pytest.raises(ConfigError, match=r"^--x "):
        bits_per_second(text, "--x")


def test_rates_have_no_bytes_in_them() -> None:
    for text in ("64KiB", "64KB/s", "1 MBps"):
        with pytest.raises(ConfigError, match="bits a second"):
            bits_per_second(text, "--bandwidth")


def test_a_deadline_is_a_number_of_bytes() -> None:
    profile = made_profile()
    assert target_bytes(profile, read_budget(bandwidth="4k", deadline=0.7)) == 350
    plan = solve_profile(profile, read_budget(bandwidth="4k", deadline=0.7))
    assert plan.target_bytes == 350
    # Time to spare need not be filled: the finest settings take so many bytes and not more.
    most = target_bytes(profile, read_budget(bandwidth="2M", deadline=10.0))
    assert most is not None
    assert 444 < most < 800
    with pytest.raises(ConfigError, match="empty one takes"):
        solve_profile(profile, read_budget(bandwidth="1k", deadline=0.1))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: read_budget(), "exactly one of --target-bytes"),
        (lambda: read_budget(target_bytes="1k", max_nmse=0.1), "say different things"),
        (lambda: read_budget(bandwidth="1k"), "--deadline is missing"),
        (lambda: read_budget(deadline=1.0), "--bandwidth is missing"),
        (lambda: read_budget(target_bytes="1q"), "--target-bytes 1q"),
        (lambda: read_budget(max_nmse=2.0), "max_nmse"),
        (lambda: read_budget(target_ratio=0.5), "target_ratio"),
        (lambda: read_budget(target_bytes="1k", allocator="lamda"), "did you mean 'lambda'"),
    ],
)
def test_a_budget_that_says_too_much_or_too_little(
    make: Callable[[], object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_tensors_with_a_codec_of_their_own() -> None:
    names = ["a.weight", "a.bias", "b.bias"]
    assert fixed_codecs(names, ["a.bias=none", "*.bias=topk(density=0.1)"]) == {
        "a.bias": "none",
        "b.bias": "topk(density=0.1)",
    }
    with pytest.raises(ConfigError, match=r"'c\.\*' matches no tensor.*a\.bias"):
        fixed_codecs(names, ["c.*=fp16"])
    with pytest.raises(UnknownNameError, match="did you mean 'fp16'"):
        fixed_codecs(names, ["*=fp17"])
    for word in ("fp16", "=fp16", "*="):
        with pytest.raises(ConfigError, match="PATTERN=CODEC"):
            fixed_codecs(names, [word])


def test_a_plan_is_within_its_budget_and_says_what_it_expects() -> None:
    profile = made_profile()
    before = None
    for size in (300, 350, 400, 500, 600):
        plan = solve_profile(profile, BudgetSpec(target_bytes=size))
        expected = predicted(profile, plan)
        assert expected.bytes <= size
        assert expected.unknown == ()
        assert expected.nmse is not None
        assert before is None or expected.nmse <= before
        before = expected.nmse
        errors = {entry.name: entry.error or 0.0 for entry in plan.entries}
        lost = sum(errors[name] * energy for name, energy in profile.energies.items())
        assert expected.nmse == pytest.approx(lost / sum(profile.energies.values()))
        assert RatePlan.from_json(plan.to_json()) == plan


def test_sensitivity_moves_bytes_to_where_errors_matter() -> None:
    profile = dataclasses.replace(made_profile((200, 200)), fisher=np.array([0.0, 1.0]))
    size = BudgetSpec(target_bytes=450)
    plain = solve_profile(profile, size)
    aware = solve_profile(profile, size, sensitivity="fisher")
    sizes = [[e.bytes or 0 for e in plan.entries if "layer" in e.name] for plan in (plain, aware)]
    assert sizes[0][0] >= sizes[0][1]
    assert sizes[1][0] < sizes[1][1]
    by_name = {entry.name: entry.sensitivity for entry in aware.entries}
    assert by_name["layer1.weight"] > 1 > by_name["layer0.weight"]  # type: ignore[operator]
    own, other = (predicted(profile, plan, "fisher").weighted for plan in (aware, plain))
    assert own is not None
    assert other is not None
    assert own < other


def test_a_menu_that_ends_too_early_is_noticed() -> None:
    profile = made_profile((400, 40))
    errors = profile.points.errors.copy()
    errors[0, -1] = 0.1
    points = dataclasses.replace(profile.points, errors=errors)
    profile = dataclasses.replace(profile, points=points)
    plenty = solve_profile(profile, BudgetSpec(target_bytes=5000))
    assert exhausted(profile, plenty) == ["layer0.weight"]
    assert "layer0.weight" in exhausted_note(["layer0.weight"])
    assert exhausted(profile, solve_profile(profile, BudgetSpec(target_bytes=300))) == []
    assert exhausted(profile, solve_profile(profile, BudgetSpec(max_nmse=0.2))) == []


def test_fixed_tensors_keep_their_codec_and_take_their_bytes() -> None:
    profile = made_profile()
    plan = solve_profile(profile, BYTES, fix=["layer1*=fp16"])
    entry = next(entry for entry in plan.entries if entry.name == "layer1.weight")
    assert (entry.codec, entry.bytes, entry.error) == ("fp16", 80.0, None)
    expected = predicted(profile, plan)
    assert expected.unknown == ("layer1.weight",)
    assert expected.bytes <= 500
    cells = plan_cells(plan, profile.sizes, expected)
    assert cells[1][:4] == ["layer1.weight", "40", "fp16", "80"]


def test_a_budget_that_nothing_fits_is_refused() -> None:
    profile = made_profile()
    least = least_bytes(profile.manifest)
    with pytest.raises(ConfigError, match="empty one takes"):
        solve_profile(profile, BudgetSpec(target_bytes=least - 1))
    with pytest.raises(ConfigError, match="was not measured"):
        solve_profile(dataclasses.replace(profile, fisher=None), BYTES, sensitivity="fisher")


def test_a_front_falls_and_nothing_beats_the_best_allocators(tmp_path: Path) -> None:
    profile = made_profile((400, 300, 200, 40, 8))
    points = front(profile, allocators=ALLOCATORS, count=12)
    budgets = targets(profile, 12)
    assert len(budgets) == 12
    assert budgets == sorted(budgets)
    found = {(point.allocator, point.target_bytes): point for point in points}
    for name in ALLOCATORS:
        own = [found[name, budget] for budget in budgets if (name, budget) in found]
        assert own
        for low, high in pairwise(own):
            assert low.nmse >= high.nmse
        assert all(point.bytes <= point.target_bytes for point in own)
        assert all(point.nmse == pytest.approx(point.weighted) for point in own)
    for budget in budgets:
        if ("uniform", budget) in found:
            assert found["dp", budget].nmse <= found["uniform", budget].nmse * 1.001
    assert (bytes_saved(points, "dp") or 0) > 0
    assert bytes_saved(points, "nothing") is None
    path = write_csv(tmp_path / "curve.csv", points)
    assert read_csv(path) == points
    cells = front_cells(points)
    assert len(cells) == 12
    assert len(cells[0]) == 1 + len(ALLOCATORS)


def test_a_front_counts_errors_by_their_weights() -> None:
    profile = made_profile()
    points = front(profile, sensitivity="fisher", count=6)
    assert any(abs(point.nmse - point.weighted) > 1e-6 for point in points)
    weights = profile.weights("fisher")
    whole = [point for point in points if point.nmse == 0]
    assert all(point.weighted == 0 for point in whole)
    assert weights.max() > 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a,b\n",
        "allocator,target_bytes,bytes,nmse,weighted\nlambda,1,2\n",
        "allocator,target_bytes,bytes,nmse,weighted\nlambda,1,2,x,3\n",
        "allocator,target_bytes,bytes,nmse,weighted\nlambda,1,2,nan,3\n",
    ],
)
def test_an_odd_front_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "curve.csv"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"curve\.csv"):
        read_csv(path)


def test_bytes_saved_is_a_ratio_at_equal_error() -> None:
    points = [FrontPoint("uniform", x, x, 100 / x, 100 / x) for x in (100.0, 200.0, 400.0)]
    points += [FrontPoint("half", x, x, 50 / x, 50 / x) for x in (25.0, 100.0, 400.0)]
    assert bytes_saved(points, "half") == pytest.approx(0.5)


def test_narrow_terminals_keep_what_matters_most() -> None:
    profile = made_profile()
    plan = solve_profile(profile, BYTES)
    table = plan_table(plan, profile.sizes, predicted(profile, plan))
    titles = [column.title for column in PLAN_COLUMNS]
    assert [titles[at] for at in table.shown(200)] == titles
    assert [titles[at] for at in table.shown(20)] == ["tensor", "bytes"]
    assert table.rows[-1][0].plain == "all, with headers"
    shares = [float(row[4].plain.rstrip("%")) for row in table.rows[:-1]]
    assert sum(shares) == pytest.approx(100, abs=0.2)


def test_a_profile_shows_sizes_shares_and_sensitivities() -> None:
    profile = made_profile()
    rows = profile_cells(profile)
    assert [row[0] for row in rows] == list(profile.points.names)
    assert rows[0][1:3] == ["100x4", "400"]
    assert sum(float(row[4].rstrip("%")) for row in rows) == pytest.approx(100, abs=0.2)
    assert rows[0][6] == significant(float(profile.weights("fisher")[0]))
    assert rows[0][5] == "400 B"


def test_heuristics_get_the_same_bytes(tmp_path: Path) -> None:
    profile = made_profile()
    plan = solve_profile(profile, BYTES)
    uplinks = write_uplinks(profile, plan, tmp_path)
    assert list(uplinks) == ["uniform", "by-size", "by-phase", "plan (lambda)"]
    for label in ("uniform", "by-size", "plan (lambda)"):
        read = RatePlan.read(uplinks[label])
        assert read.target_bytes == 500
        read.plan(profile.manifest)
    policy = Policy.read(uplinks["by-phase"])
    assert policy.target(profile.manifest) == 500
    assert policy.schedule is not None
    assert policy.schedule.kind == "phase"
    # Another plan has other files: finished runs are not taken for it.
    other = solve_profile(profile, BudgetSpec(target_bytes=450))
    assert not set(uplinks.values()) & set(write_uplinks(profile, other, tmp_path).values())


def test_a_menu_with_rd_is_compared_with_rd_itself(tmp_path: Path) -> None:
    settings = ("rd(relative=4,scope=tensor)", "rd(relative=1,scope=tensor)")
    profile = made_profile(settings=settings)
    plan = solve_profile(profile, BudgetSpec(max_nmse=0.5))
    size = common_bytes(profile, plan)
    assert size == int(predicted(profile, plan).bytes)
    assert write_uplinks(profile, plan, tmp_path)["rd"] == f"rd(target_bytes={size})"


def test_runs_of_a_verification_differ_in_the_uplink_alone(tmp_path: Path) -> None:
    base = load_config(None, ["rounds=3", "seed=5", "uplink=int8"])
    planned = plan_verification(base, {"uniform": "u.json", "plan (dp)": "p.json"}, 2, tmp_path)
    assert [(run.label, run.config.seed) for run in planned] == [
        (label, seed) for label in ("none", "uniform", "plan (dp)") for seed in (5, 6)
    ]
    assert {run.config.downlink for run in planned} == {"none"}
    assert [run.config.uplink for run in planned[::2]] == ["none", "u.json", "p.json"]
    assert planned[-1].folder == tmp_path / "plan" / "seed-6"


def test_clients_of_a_profile_are_those_of_its_verification() -> None:
    config = load_config(
        None, ["task=mnist", "clients=7", "training.lr=0.1", "rounds=9", "uplink=int8", "workers=2"]
    )
    words = config_words(config.model_dump(mode="json"))
    again = load_config(None, words)
    assert (again.task, again.clients, again.training.lr) == ("mnist", 7, 0.1)
    assert (again.rounds, again.uplink, again.workers) == (20, "stc", 1)
    assert config_words({"task": None, "training": 3}) == []


def _written(tmp_path: Path, profile: Profile, plan: RatePlan | None) -> str:
    folder = TuningFolder(tmp_path)
    (tmp_path / "profile.json").write_text(profile.to_json())
    folder = folder.having("profile", tmp_path / "profile.json", profile.command)
    if plan is not None:
        plan.save(tmp_path / "plan.json")
        folder = folder.having("plan", tmp_path / "plan.json", "tune solve", sensitivity="loss")
    return write_report(folder).read_text()


def test_the_report_shows_all_there_is(tmp_path: Path) -> None:
    profile = made_profile()
    plan = solve_profile(profile, BYTES, sensitivity="loss")
    text = _written(tmp_path, profile, plan)
    for words in (
        "small: rates per tensor",
        "What every budget gives",
        "Bytes and sensitivity per tensor",
        "Error against bytes, tensor by tensor",
        "<h2>Plan</h2>",
        "<h2>Pareto front</h2>",
        "<h2>Do losses add up?</h2>",
        "all, with headers",
        "The profile was cut short. loss at NMSE 0.05: 2 of 3 tensors.",
        "class weights blue = 2",
        "flowerpress tune profile\ntune solve",
        "<dt>partition</dt><dd>iid</dd>",
        "<dt>numpy</dt><dd>2</dd>",
        "weights: loss",
    ):
        assert words in text, words
    assert text.count("<svg ") == 3
    assert not re.search(r"https?://|<script|<link|src=", text)
    assert {path.name for path in tmp_path.glob("*.png")} == {
        "curves.png",
        "front.png",
        "tensors.png",
    }


def test_the_report_of_a_profile_alone_has_no_plan(tmp_path: Path) -> None:
    text = _written(tmp_path, made_profile(), None)
    assert "<h2>Plan</h2>" not in text
    assert "<h2>Tensors</h2>" in text
    assert text.count("<svg ") == 2


def test_a_plan_for_another_model_is_left_out_with_a_word(tmp_path: Path) -> None:
    plan = solve_profile(made_profile((80, 8)), BYTES)
    text = _written(tmp_path, made_profile(), plan)
    assert "the plan is for another model than the profile" in text
    assert "<h2>Plan</h2>" not in text


def test_names_of_tensors_are_text_in_the_report(tmp_path: Path) -> None:
    text = made_profile().to_json().replace("layer0.weight", "<b>$x^2$\\u202e")
    profile = made_profile()
    specs = tuple(
        dataclasses.replace(spec, name="<b>$x^2$\u202e") if spec.name == "layer0.weight" else spec
        for spec in profile.manifest.specs
    )
    manifest = dataclasses.replace(profile.manifest, specs=specs)
    text = text.replace(profile.manifest.digest.hex(), manifest.digest.hex())
    shown = _written(tmp_path, Profile.from_json(text), None)
    assert "<b>$x" not in shown
    assert "\u202e" not in shown
    assert "&lt;b&gt;$x^2$" in shown
