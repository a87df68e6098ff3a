"""What every task inherits: checks of samples and data, one round of training, evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from flowerpress.compression.errors import ConfigError
from flowerpress.simulations.tasks import Data, Samples, Task, Training


class Line(Task):
    """Two classes, told apart by the sign of one number."""

    training: ClassVar[Training] = Training(batch_size=4, lr=0.5)
    evaluation_batch: ClassVar[int] = 3

    def load(self) -> Data:
        inputs = torch.linspace(-1, 1, 20).reshape(20, 1)
        samples = Samples(inputs, (inputs[:, 0] > 0).long())
        return Data(samples, samples, ("minus", "plus"))

    def build(self) -> nn.Module:
        return nn.Linear(1, 2)


class Echo(Task):
    """A sequence task: the model scores each input symbol highest."""

    def load(self) -> Data:
        inputs = torch.tensor([[0, 1, 2, 1], [2, 2, 0, 0]])
        labels = torch.tensor([[0, 1, 2, 2], [0, 0, 0, 0]])
        samples = Samples(inputs, labels)
        return Data(samples, samples, ("a", "b", "c"))

    def build(self) -> nn.Module:
        model = nn.Embedding(3, 3)
        nn.init.eye_(model.weight)
        return model


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def weights(model: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


def seeded(task: Task) -> nn.Module:
    torch.manual_seed(3)
    return task.build()


def test_name_is_the_class_name_in_lower_case() -> None:
    assert Line.name == "line"


@pytest.mark.parametrize(
    ("inputs", "labels", "groups", "says"),
    [
        (torch.zeros(3, 2), torch.zeros(3), None, "labels.long()"),
        (torch.zeros(3, 2), torch.zeros(4, dtype=torch.int64), None, "first axis"),
        (torch.zeros(3, 2), torch.zeros(3, 1, 1, dtype=torch.int64), None, "(N, T)"),
        (torch.zeros(3), torch.zeros(3, dtype=torch.int64), np.zeros(2, np.int64), "(3,)"),
    ],
)
def test_samples_that_do_not_fit_are_refused(
    inputs: Tensor, labels: Tensor, groups: np.ndarray | None, says: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        Samples(inputs, labels, groups)
    assert says in str(caught.value)


@pytest.mark.parametrize("label", [-1, 2])
def test_a_label_that_names_no_class_is_refused(label: int) -> None:
    good = Samples(torch.zeros(1, 1), torch.zeros(1, dtype=torch.int64))
    bad = Samples(torch.zeros(1, 1), torch.tensor([label]))
    with pytest.raises(ConfigError, match=f"test: label {label} "):
        Data(good, bad, ("a", "b"))


def test_data_without_examples_is_refused() -> None:
    none = Samples(torch.zeros(0, 1), torch.zeros(0, dtype=torch.int64))
    with pytest.raises(ConfigError, match="train: there are no examples"):
        Data(none, none, ("a",))


def test_take_keeps_order_and_groups() -> None:
    samples = Samples(
        torch.arange(5).reshape(5, 1), torch.arange(5), np.arange(10, 15, dtype=np.int64)
    )
    taken = samples.take(np.array([3, 0], np.int64))
    assert taken.inputs.tolist() == [[3], [0]]
    assert taken.labels.tolist() == [3, 0]
    assert taken.groups is not None
    assert taken.groups.tolist() == [13, 10]


@pytest.mark.parametrize(
    "bad", [{"epochs": 0}, {"batch_size": 0}, {"max_samples": 0}, {"lr": -1.0}, {"lr": np.nan}]
)
def test_training_out_of_range_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(bad))):
        Training(**bad)  # type: ignore[arg-type]


def test_same_generator_gives_the_same_bits() -> None:
    task = Line()
    data = task.load()
    runs: list[list[Tensor]] = []
    for seed in (1, 1, 2):
        model = seeded(task)
        torch.manual_seed(seed * 100 + len(runs))  # torch's own generator must not matter
        task.train(model, data.train, task.training, generator(seed))
        runs.append(weights(model))
    assert all(torch.equal(a, b) for a, b in zip(runs[0], runs[1], strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(runs[0], runs[2], strict=True))


def test_training_leaves_the_global_generator_alone() -> None:
    task = Line()
    data, model = task.load(), seeded(task)
    before = torch.get_rng_state()
    task.train(model, data.train, task.training, generator())
    task.evaluate(model, data.test)
    assert torch.equal(torch.get_rng_state(), before)


def test_one_full_batch_is_one_step_of_the_formula() -> None:
    """With one batch, SGD moves by lr * gradient of the mean cross entropy, written out here."""
    task = Line()
    samples = task.load().train
    model = seeded(task)
    weight, bias = weights(model)
    scores = samples.inputs @ weight.T + bias
    wrong = torch.softmax(scores, 1) - nn.functional.one_hot(samples.labels, 2)
    expected = weight - 0.3 * (wrong.T @ samples.inputs) / 20
    loss = -torch.log_softmax(scores, 1)[torch.arange(20), samples.labels].mean()

    result = task.train(model, samples, Training(batch_size=20, lr=0.3, momentum=0.9), generator())
    torch.testing.assert_close(weights(model)[0], expected)
    assert result.loss == pytest.approx(float(loss), rel=1e-5)
    assert result.examples == 20


def test_max_samples_bounds_what_is_seen() -> None:
    seen: list[float] = []

    class Watch(Line):
        def prepare(self, inputs: Tensor) -> Tensor:
            seen.extend(inputs[:, 0].tolist())
            return inputs

    task = Watch()
    result = task.train(
        seeded(task), task.load().train, Training(epochs=3, batch_size=4, max_samples=7),
        generator(),
    )  # fmt: skip
    assert result.examples == 7
    assert len(seen) == 21
    assert sorted(seen[:7]) == sorted(seen[7:14]) == sorted(seen[14:])
    assert len(set(seen)) == 7


def test_frozen_parameters_stay() -> None:
    task = Line()
    model = seeded(task)
    frozen = next(model.parameters())
    frozen.requires_grad_(False)
    before = weights(model)
    task.train(model, task.load().train, Training(weight_decay=0.1), generator())
    after = weights(model)
    assert torch.equal(before[0], after[0])
    assert not torch.equal(before[1], after[1])


def test_training_on_nothing_is_refused() -> None:
    task = Line()
    none = task.load().train.take(np.zeros(0, np.int64))
    with pytest.raises(ConfigError, match="no examples"):
        task.train(seeded(task), none, task.training, generator())


def test_evaluation_agrees_with_the_plain_formula() -> None:
    task = Line()
    samples = task.load().test
    model = seeded(task)
    result = task.evaluate(model, samples)
    with torch.no_grad():
        for index in range(20):
            scores = model(samples.inputs[index])
            label = int(samples.labels[index])
            assert result.loss[index] == pytest.approx(
                float(torch.logsumexp(scores, 0) - scores[label]), abs=1e-5
            )
            assert result.correct[index] == float(int(scores.argmax()) == label)
    assert result.total.tolist() == [10, 10]
    assert result.right.sum() == result.correct.sum()
    assert result.accuracy == pytest.approx(result.correct.mean())
    assert result.loss.dtype == result.correct.dtype == np.float32
    assert result.right.dtype == result.total.dtype == np.int64


def test_evaluation_changes_nothing() -> None:
    task = Line()
    model = seeded(task)
    before = weights(model)
    for mode in (True, False):
        model.train(mode)
        task.evaluate(model, task.load().test)
        assert model.training is mode
    assert all(torch.equal(a, b) for a, b in zip(before, weights(model), strict=True))


def test_sequences_score_the_fraction_of_right_steps() -> None:
    task = Echo()
    result = task.evaluate(task.build(), task.load().test)
    assert result.correct.tolist() == [0.75, 0.5]
    assert result.total.tolist() == [5, 1, 2]
    assert result.right.tolist() == [3, 1, 1]
    assert result.recall.tolist() == pytest.approx([0.6, 1.0, 0.5])
    assert result.accuracy == pytest.approx(0.625)


@pytest.mark.parametrize("task", [Line(), Echo()])
def test_no_samples_give_zero_counts_for_every_class(task: Task) -> None:
    data = task.load()
    result = task.evaluate(task.build(), data.test.take(np.zeros(0, np.int64)))
    assert result.loss.shape == result.correct.shape == (0,)
    assert result.total.tolist() == result.right.tolist() == [0] * len(data.classes)
    assert np.isnan(result.accuracy)
    assert np.isnan(result.recall).all()
