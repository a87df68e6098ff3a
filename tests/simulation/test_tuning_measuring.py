"""What a profile measures: sensitivities against slow twins, stages within a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.func import functional_call, grad, vmap
from torch.nn import functional

from flowerpress.compression import ConfigError, Manifest, TensorSpec, UnknownNameError
from flowerpress.compression.rates.menu import MENUS
from flowerpress.simulations.loaded import load
from flowerpress.simulations.tuning.class_weights import example_weights, read_class_weights
from flowerpress.simulations.tuning.fisher import Fisher
from flowerpress.simulations.tuning.loss_change import LossChange, coding_error
from flowerpress.simulations.tuning.menus import read_menu, split_codecs, spread_order
from flowerpress.simulations.tuning.parts import Part, groups_of, parts_named, parts_of
from flowerpress.simulations.tuning.profile import Profile
from flowerpress.simulations.tuning.profiling import Profiling, Wanted
from flowerpress.simulations.tuning.stages import NothingMeasuredError
from flowerpress.simulations.tuning.time_budget import TimeBudget
from flowerpress.simulations.tuning.updates import Federation, moved
from flowerpress.simulations.tuning.weights import CEILING, FLOOR, normalised, slopes
from tests.simulation.small_tuning import MENU, Branches, Small, config

TEXT = ",".join(MENU)


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


class Clock:
    """Goes on by ``step`` seconds whenever somebody looks."""

    def __init__(self, step: float) -> None:
        self.now, self.step = 0.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def _parts(model: torch.nn.Module) -> tuple[Part, ...]:
    specs = [TensorSpec(name, tuple(each.shape)) for name, each in model.named_parameters()]
    return parts_of(specs, {})


def test_fisher_is_the_mean_of_squared_gradients_of_single_examples() -> None:
    task = Small()
    samples = task.load().train.take(np.arange(12))
    model = task.build()
    weights = np.linspace(0.5, 2.0, 12)
    fisher = Fisher(task, model, _parts(model))
    for at in range(12):
        fisher.add(samples.take(np.array([at])), float(weights[at]))
    found = fisher.squared_gradients()

    def loss(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        scores = functional_call(model, parameters, (x[None],))
        return functional.cross_entropy(scores, y[None])

    parameters = {name: each.detach() for name, each in model.named_parameters()}
    each = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, samples.inputs, samples.labels)
    for name, gradients in each.items():
        squares = gradients.double().square().flatten(1).mean(1).numpy()
        expected = float(np.average(squares, weights=weights))
        assert found[name] == pytest.approx(expected, rel=1e-5), name
    assert found["unused.weight"] == 0.0
    assert fisher.examples == 12


def test_fisher_of_blocks_adds_up_to_that_of_the_tensor() -> None:
    task = Small()
    samples = task.load().train
    model = task.build()
    whole = _parts(model)
    specs = [part.spec for part in whole]
    cut = parts_of(specs, {"first.weight": 3})
    assert [part.name for part in cut][:3] == [
        "first.weight[0:3]",
        "first.weight[3:6]",
        "first.weight[6:8]",
    ]
    found = []
    for parts in (whole, cut):
        fisher = Fisher(task, model, parts)
        for at in range(5):
            fisher.add(samples.take(np.array([at])))
        found.append(fisher.squared_gradients())
    blocks = sum(found[1][part.name] * part.spec.size for part in cut[:3])
    assert blocks == pytest.approx(found[0]["first.weight"] * 48)
    assert found[1]["last.bias"] == found[0]["last.bias"]


def test_class_weights_change_which_tensor_is_sensitive() -> None:
    task = Branches()
    samples = task.load().train
    model = task.build()
    ranking = []
    for text in ("0=50", "1=50,2=50"):
        weights = example_weights(samples, read_class_weights(text, ("0", "1", "2")))
        fisher = Fisher(task, model, _parts(model))
        for at in range(len(samples)):
            fisher.add(samples.take(np.array([at])), float(weights[at]))
        found = fisher.squared_gradients()
        ranking.append(found["left.weight"] > found["right.weight"])
    assert ranking == [True, False]


def test_loss_change_is_that_of_the_weighted_mean_loss() -> None:
    task = Small()
    samples = task.load().train
    model = task.build()
    state = {name: each.detach().clone() for name, each in model.state_dict().items()}
    own = np.array([1.0, 5.0, 1.0])
    judge = LossChange(task, task.build(), state, samples, own)
    rng = np.random.default_rng(0)
    error = rng.standard_normal((3, 8)).astype(np.float32)
    with torch.no_grad():
        weights = torch.from_numpy(own).float()
        before = functional.cross_entropy(model(samples.inputs), samples.labels, weights)
        model.get_parameter("last.weight").add_(torch.from_numpy(error))
        after = functional.cross_entropy(model(samples.inputs), samples.labels, weights)
    assert judge.loss == pytest.approx(float(before), rel=1e-5)
    assert judge.of({"last.weight": error}) == pytest.approx(float(after - before), rel=1e-4)
    assert judge.of({}) == 0.0


def test_a_tensor_that_the_model_ignores_changes_no_loss() -> None:
    task = Small()
    model = task.build()
    state = {name: each.detach().clone() for name, each in model.state_dict().items()}
    judge = LossChange(task, model, state, task.load().train, np.ones(3))
    assert judge.of({"unused.weight": np.full((4, 5), 9.0, np.float32)}) == 0.0
    assert judge.of({"last.bias": np.array([9.0, 0.0, 0.0], np.float32)}) > 0.1
    assert judge.of({"last.bias": np.full(3, np.inf, np.float32)}) == np.inf


def test_coding_error_is_what_the_receiver_lacks() -> None:
    values = np.array([[3.0, 0.1], [-4.0, 0.2]], np.float32)
    spec = TensorSpec("w", (2, 2))
    error = coding_error(spec, values, "topk(density=0.5)", np.random.default_rng(0))
    np.testing.assert_allclose(error, [[0.0, -0.1], [0.0, -0.2]], rtol=1e-6)
    exact = coding_error(spec, values, "none", np.random.default_rng(0))
    np.testing.assert_array_equal(exact, 0.0)


@given(
    st.lists(
        st.tuples(st.floats(-10, 1e9) | st.just(np.nan), st.floats(0, 1e9)), min_size=1, max_size=9
    )
)
def test_weights_are_positive_and_have_the_mean_one(rows: list[tuple[float, float]]) -> None:
    measured, energies = (np.array(column) for column in zip(*rows, strict=True))
    weights = normalised(measured, energies)
    assert ((weights >= FLOOR) & (weights <= CEILING)).all()
    assert (weights[np.isnan(measured)] == 1.0).all()
    scaled = normalised(measured * 2.0, energies)
    np.testing.assert_allclose(scaled, weights, rtol=1e-6)
    inside = (weights > FLOOR) & (weights < CEILING)
    if inside.all() and energies.sum() > 1e-3:
        assert np.average(weights, weights=energies) == pytest.approx(1.0)


def test_weights_keep_the_ranking_and_forgive_zeros() -> None:
    energies = np.array([1.0, 2.0, 1.0])
    weights = normalised(np.array([4.0, 1.0, -3.0]), energies)
    np.testing.assert_allclose(weights, [4 / 1.5, 1 / 1.5, FLOOR])
    np.testing.assert_array_equal(normalised(np.zeros(3), energies), 1.0)
    np.testing.assert_array_equal(normalised(np.array([np.nan, 2.0, np.nan]), np.zeros(3)), 1.0)


def test_slopes_are_least_squares_through_the_origin() -> None:
    changes = np.array([[2.0, 1.0], [3.0, np.nan], [np.nan, np.nan], [1.0, 1.0]])
    errors = np.array([[1.0, 0.5], [1.5, np.nan], [np.nan, np.nan], [0.0, 0.0]])
    found = slopes(changes, errors)
    np.testing.assert_allclose(found[:2], 2.0)
    assert np.isnan(found[2:]).all()


@given(st.integers(1, 64))
def test_beginnings_of_the_order_cover_the_range(count: int) -> None:
    order = spread_order(count)
    assert sorted(order) == list(range(count))
    for length in range(2, count + 1):
        gaps = np.diff(sorted(order[:length]))
        assert order[:2] == [0, count - 1]
        assert gaps.max() <= 4 * max(1, (count - 1) / (length - 1))


def test_menus_are_names_or_codecs() -> None:
    assert read_menu("int8, topk(density=0.1)") == (
        "int8",
        "topk(density=0.1)",
    )
    assert len(read_menu("rd")) > 5
    assert read_menu("nf4") == ("nf4",)
    assert split_codecs(" a(b=1,c=2),, d") == ["a(b=1,c=2)", "d"]
    with pytest.raises(UnknownNameError, match="did you mean 'mixed'"):
        read_menu("mixt")
    with pytest.raises(UnknownNameError, match="unknown codec 'int9'"):
        read_menu("int9,nf4")
    with pytest.raises(ConfigError):
        read_menu("")


def test_class_weights_are_read_strictly() -> None:
    classes = ("cat", "dog", "2")
    np.testing.assert_array_equal(read_class_weights("dog=5, 0=.5", classes), [0.5, 5, 1])
    np.testing.assert_array_equal(read_class_weights("2=3", classes), [1, 1, 3])
    np.testing.assert_array_equal(read_class_weights(None, classes), 1)
    for text in ("cow=1", "3=1"):
        with pytest.raises(UnknownNameError, match="class"):
            read_class_weights(text, classes)
    for text in ("cat", "cat=", "=3", "cat=-1", "cat=0", "cat=nan", "cat=1e999", "cat=1,0=2"):
        with pytest.raises(ConfigError):
            read_class_weights(text, classes)


def test_blocks_are_named_by_their_rows_and_nothing_else() -> None:
    specs = (TensorSpec("w", (10, 3)), TensorSpec("b", (5,)), TensorSpec("n", (), "int64"))
    assert groups_of(specs, 4) == {"w": 4}
    assert groups_of(specs, 100) == {"w": 10}
    assert groups_of(specs, 1) == {}
    assert groups_of((TensorSpec("a", (4,)), TensorSpec("b", (4,))), 2) == {}
    manifest = Manifest(specs)
    parts = parts_named(manifest, ["w[0:5]", "w[5:10]", "b"])
    values = np.arange(30, dtype=np.float32).reshape(10, 3)
    own = parts[1].of(values)
    np.testing.assert_array_equal(own, values[5:])
    np.testing.assert_array_equal(parts[1].spread(own, (10, 3))[:5], 0)
    np.testing.assert_array_equal(parts[1].spread(own, (10, 3))[5:], values[5:])
    for names in (["w"], ["b", "w"], ["w[0:4]", "w[4:10]", "b"], ["w", "b", "n"], ["w", "b", "x"]):
        with pytest.raises(ConfigError, match="measured"):
            parts_named(manifest, names)
    with pytest.raises(ConfigError, match="has 10 rows"):
        parts_named(manifest, [f"w[{at}:{at + 1}]" for at in range(11)] + ["b"])


def test_clients_never_see_what_is_held_out() -> None:
    loaded = load(config())
    federation = Federation(loaded, clients=4)
    held = {tuple(row.tolist()) for row in federation.held_out.inputs}
    assert len(held) == 30
    test = {tuple(row.tolist()) for row in loaded.data.test.inputs}
    assert not held & test
    for client in range(4):
        samples = federation._samples(client)
        assert not held & {tuple(row.tolist()) for row in samples.inputs}


def test_updates_and_their_mean_are_plain_fedavg() -> None:
    loaded = load(config())
    federation = Federation(loaded, clients=3)
    for number in (1, 2):
        for client in federation.order(number):
            federation.train(number, client)
    assert len(federation.updates) == 3
    assert federation.round == 2
    total = sum(update.examples for update in federation.updates)
    for name in ("first.weight", "last.bias"):
        change = federation.mean()[name].double() - federation.before[name].double()
        expected = sum(
            update.examples / total * update.tensors[name].astype(np.float64)
            for update in federation.updates
        )
        np.testing.assert_allclose(change.numpy(), expected, atol=1e-6)
    assert "steps" not in federation.updates[0].tensors
    again = Federation(loaded, clients=3)
    again.train(1, again.order(1)[0])
    other = Federation(loaded, clients=3)
    torch.rand(7)  # whatever was drawn in between
    other.train(1, other.order(1)[0])
    for name, values in again.updates[0].tensors.items():
        np.testing.assert_array_equal(values, other.updates[0].tensors[name])


def test_moved_adds_to_the_tensors_that_are_named() -> None:
    state = {"a": torch.ones(2), "b": torch.zeros(2)}
    result = moved(state, {"a": np.array([1.0, 2.0], np.float32)})
    assert result["a"].tolist() == [2.0, 3.0]
    assert state["a"].tolist() == [1.0, 1.0]
    assert result["b"] is state["b"]


def test_everything_is_measured_where_there_is_time() -> None:
    told: dict[str, tuple[int, int]] = {}

    def tell(stage: str, done: int, total: int) -> None:
        told[stage] = (done, total)

    profile = Profiling(config(), Wanted(TEXT, examples=20, clients=3), tell=tell).run("command")
    assert profile.points.settings == MENU
    assert profile.measured() == ("none", "fisher", "loss")
    assert profile.skipped == ()
    assert profile.facts["updates"] == 3
    assert profile.facts["fisher_examples"] == 20
    assert profile.facts["loss_examples"] == 30
    assert profile.config["partition"] == "iid"
    assert all(done == total for done, total in told.values())
    assert set(told) == {
        "training",
        "menu",
        "gradients",
        "held-out loss",
        "loss at NMSE 0.3",
        "other clients",
        "interaction",
        "loss at NMSE 0.05",
    }
    named = dict(zip(profile.points.names, profile.weights("loss"), strict=True))
    # What the model does not use is not moved by training either: there was nothing to try.
    assert named["unused.weight"] == 1.0
    assert len(profile.interactions) == 4
    assert "steps" not in profile.points.names


def test_the_same_seed_gives_the_same_profile() -> None:
    wanted = Wanted(f"{TEXT},qsgd(bits=2)", examples=5, clients=2, rounds=1)
    first, second, other = (
        Profiling(config(seed=seed), wanted, TimeBudget(clock=lambda: 0.0)).run()
        for seed in (3, 3, 4)
    )
    assert first.to_json() == second.to_json()
    assert first.to_json() != other.to_json()


def test_a_short_time_leaves_out_what_is_worth_least() -> None:
    counts = []
    for seconds in (15.0, 50.0, 100.0, 20_000.0):
        budget = TimeBudget(seconds, Clock(1.0))
        profile = Profiling(config(), Wanted("topk", examples=50), budget).run()
        counts.append(
            (
                profile.facts["clients"],
                len(profile.points.settings),
                profile.facts.get("fisher_examples", 0),
                profile.facts.get("loss_examples", 0),
                profile.facts["updates"],
                len(profile.interactions),
            )
        )
        assert bool(profile.skipped) == (seconds < 20_000)
    for low, high in pairwise(counts):
        assert all(a <= b for a, b in zip(low, high, strict=True)), counts
    assert counts[0][1] >= 2
    assert counts[0][2:] == (0, 0, 1, 0)
    assert counts[-1] == (8, len(MENUS["topk"]), 50, 30, 3, 4)


def test_what_was_skipped_is_said() -> None:
    profile = Profiling(config(), Wanted("topk"), TimeBudget(5.0, Clock(1.0))).run()
    said = " ".join(profile.skipped)
    for word in ("training: ", "menu: ", "gradients: ", "loss changes: "):
        assert word in said
    assert profile.measured() == ("none",)
    with pytest.raises(ConfigError, match="was not measured"):
        profile.weights("fisher")


@pytest.mark.parametrize("stage", ["menu", "gradients", "loss at NMSE 0.3", "interaction"])
def test_ctrl_c_keeps_what_there_is(stage: str) -> None:
    def tell(name: str, done: int, total: int) -> None:
        if name == stage and done == (4 if stage == "menu" else 2):
            raise KeyboardInterrupt

    measuring = Profiling(config(), Wanted(TEXT, examples=9), tell=tell)
    if stage == "menu":
        with pytest.raises(NothingMeasuredError, match="stopped before"):
            measuring.run()
        return
    profile = measuring.run()
    assert profile.points.settings == MENU
    assert profile.skipped[-1] == "what came after Ctrl-C"
    assert profile.facts["updates"] == (1 if stage != "interaction" else 3)
    assert profile.facts["fisher_examples"] == (2 if stage == "gradients" else 9)
    trials = profile.loss_changes
    assert (trials is None) == (stage == "gradients")
    if stage.startswith("loss"):
        assert trials is not None
        assert np.isfinite(trials).sum() == 2
    assert len(profile.interactions) == (2 if stage == "interaction" else 0)
    Profile.from_json(profile.to_json())


def test_stopping_at_once_is_an_error() -> None:
    def tell(name: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(NothingMeasuredError, match="stopped before anything"):
        Profiling(config(), Wanted(TEXT), tell=tell).run()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Wanted(sensitivity="fischer"), "did you mean 'fisher'"),
        (lambda: Wanted(rounds=0), "rounds is 0"),
        (lambda: Wanted(groups=-1), "groups is -1"),
        (lambda: TimeBudget(0), "time budget"),
        (lambda: TimeBudget(float("inf")), "time budget"),
        (lambda: Profiling(config(), Wanted(class_weights="pink=2")), "unknown class 'pink'"),
        (lambda: Profiling(config(), Wanted("nope")), "unknown menu"),
        (
            lambda: Profiling(config(training={"lr": 1e38}), Wanted(TEXT)).run(),
            "diverged in round",
        ),
    ],
)
def test_what_cannot_be_measured_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_blocks_of_a_large_tensor_are_measured_by_themselves() -> None:
    profile = Profiling(config(), Wanted(TEXT, examples=5, groups=2, clients=2)).run()
    assert profile.points.names[0] == "first.weight"  # holds 48 of 107, which is not most
    tensors = {part.tensor for part in profile.parts}
    assert tensors == set(profile.sizes)
    assert profile.by_tensor(profile.weights("fisher")).keys() == tensors
