"""Distillation of cut networks: what it reaches, stops, goes on from, and does with clients."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from flowerpress.compression.bottleneck import Cut
from flowerpress.compression.errors import ConfigError
from flowerpress.simulations.config import SimulationConfig
from flowerpress.simulations.split.batches import Batches
from flowerpress.simulations.split.distill import distill, generator_of, learning
from flowerpress.simulations.split.distill_settings import DistillSettings
from flowerpress.simulations.split.federated import Federation, distill_federated
from flowerpress.simulations.split.lesson import Lesson, judge_cut, lesson
from flowerpress.simulations.split.stored import CutRecipe
from flowerpress.simulations.tasks import Data, Samples, Task, Training
from flowerpress.simulations.tasks.digits import Digits

CLASSES = 4


class Stripes(Task):
    """Images (1, 16, 16) of stripes with one of four slopes, in noise."""

    cut_at = "input-first"

    def load(self) -> Data:
        return Data(_stripes(256, 1), _stripes(200, 2), tuple("abcd"))

    def build(self) -> nn.Module:
        net = nn.Sequential()
        net.add_module("first", nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU()))
        net.add_module("second", nn.Sequential(nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU()))
        net.add_module("head", nn.Sequential(nn.Flatten(), nn.Linear(128, CLASSES)))
        return net


def _stripes(count: int, seed: int) -> Samples:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (count,), generator=generator)
    down, right = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    slopes = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.7, 0.7], [0.7, -0.7]])[labels]
    phases = 6.28 * torch.rand(count, 1, 1, generator=generator)
    along = slopes[:, :1, None] * down + slopes[:, 1:, None] * right
    images = torch.sin(along + phases) + 0.5 * torch.randn(count, 16, 16, generator=generator)
    return Samples(images[:, None], labels)


@pytest.fixture(scope="module")
def teacher() -> nn.Module:
    torch.manual_seed(0)
    task = Stripes()
    model = task.build()
    generator = torch.Generator().manual_seed(0)
    task.train(model, task.load().train, Training(epochs=10, lr=0.1), generator)
    assert task.evaluate(model, task.load().test).accuracy > 0.85
    return model.eval()


def taught(teacher: nn.Module, text: str = "entropic(channels=4,width=8)") -> Lesson:
    torch.manual_seed(7)
    return lesson(Stripes(), Stripes().load(), teacher, None, text)


def settings(beta: float = 1e-3, **changes: object) -> DistillSettings:
    own = {"epochs_stage1": 8, "epochs_stage2": 2, "lr": 1e-2, "batch_size": 32, **changes}
    return DistillSettings(beta, **own)  # type: ignore[arg-type]


def learn(one: Lesson, how: DistillSettings, **more: object) -> Cut:
    task = Stripes()
    batches = Batches(task, task.load().train, how.batch_size, augment=False)
    return distill(one.cut, one.teacher, one.features, batches, how, 3, **more)  # type: ignore[arg-type]


def state(cut: Cut) -> dict[str, Tensor]:
    return nn.ModuleList(cut.parts()).state_dict()


def same(one: Cut, other: Cut) -> bool:
    pairs = zip(state(one).values(), state(other).values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_the_rate_falls_as_beta_rises_and_bits_are_bytes(teacher: nn.Module) -> None:
    task = Stripes()
    told = []
    for beta in (1e-5, 3e-3, 3e-2):
        cut = learn(taught(teacher), settings(beta))
        told.append(judge_cut(cut, task, task.load().test))
    sizes = [each.bytes_each for each in told]
    assert sizes[0] > 1.5 * sizes[1], sizes
    assert sizes[1] > 1.2 * sizes[2], sizes
    # Where bits cost next to nothing, the student comes near its teacher.
    assert told[0].accuracy > 0.75
    # Evaluation with the coder is evaluation without.
    plain = task.evaluate(_Whole(cut), task.load().test)
    assert plain.accuracy == told[-1].accuracy
    assert plain.mean_loss == told[-1].loss


class _Whole(nn.Module):
    def __init__(self, cut: Cut) -> None:
        super().__init__()
        self.parts, self.cut = nn.ModuleList(cut.parts()), cut

    def forward(self, inputs: Tensor) -> Tensor:
        return self.cut.whole(inputs)


@pytest.mark.parametrize(
    "text",
    [
        "reduction(channels=4,width=8,bits=4)",
        "vq(codes=16,dimensions=4,width=8)",
        "entropic(channels=4,width=8)",
    ],
)
def test_a_student_learns_whatever_the_bottleneck(teacher: nn.Module, text: str) -> None:
    task = Stripes()
    rounding = "straight-through" if text.startswith("entropic") else "noise"
    one = taught(teacher, text)
    before = judge_cut_or_chance(one, task)
    cut = learn(one, settings(1e-4, rounding=rounding))
    told = judge_cut(cut, task, task.load().test)
    assert told.accuracy > max(0.6, before + 0.2)
    assert 0 < told.bytes_each < 100


def judge_cut_or_chance(one: Lesson, task: Task) -> float:
    one.cut.bottleneck.calibrate(one.cut.head(task.prepare(task.load().train.inputs[:64])))
    return judge_cut(one.cut, task, task.load().test).accuracy


def test_what_a_stage_does_not_train_stays(teacher: nn.Module) -> None:
    one = taught(teacher)
    before = {name: value.clone() for name, value in state(one.cut).items()}
    first = state(learn(one, settings(epochs_stage1=1, epochs_stage2=0)))
    changed = {name for name in before if not torch.equal(before[name], first[name])}
    assert changed
    assert all(name.startswith("1.") for name in changed)  # the bottleneck
    encoder = {name: value.clone() for name, value in first.items()}
    last = state(learn(one, settings(epochs_stage1=0, epochs_stage2=1)))
    changed = {name for name in encoder if not torch.equal(encoder[name], last[name])}
    assert changed
    assert all(name.startswith(("1.decoder", "2.")) for name in changed)
    tuned = {name: value.clone() for name, value in last.items()}
    joint = settings(epochs_stage1=0, epochs_stage2=0, epochs_stage3=1)
    both = state(learn(one, joint))
    changed = {name for name in tuned if not torch.equal(tuned[name], both[name])}
    for part in ("1.encoder", "1.decoder", "1.prior", "2."):
        assert any(name.startswith(part) for name in changed)
    assert not any(name.startswith("0.") for name in changed)  # the head
    assert all(parameter.requires_grad for parameter in one.cut.tail.parameters())
    with pytest.raises(ZeroDivisionError), learning(one.cut, 1):
        raise ZeroDivisionError
    assert all(parameter.requires_grad for parameter in one.cut.tail.parameters())


def test_both_sides_together_need_fewer_bits_for_the_same(teacher: nn.Module) -> None:
    task = Stripes()
    test = task.load().test
    one = taught(teacher)
    learn(one, settings())
    before = judge_cut(one.cut, task, test)
    learn(one, settings(epochs_stage1=0, epochs_stage2=0, epochs_stage3=6))
    after = judge_cut(one.cut, task, test)
    assert after.bytes_each < before.bytes_each
    assert after.accuracy >= before.accuracy - 0.02


class Embed(nn.Embedding):
    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs).transpose(1, 2)


class Steps(nn.Linear):
    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs.transpose(1, 2))


class Doubles(Task):
    """Sequences (12,) of eight letters; the label of a step is whether the letter is odd."""

    cut_at = "embed"

    def load(self) -> Data:
        letters = torch.randint(8, (128, 12), generator=torch.Generator().manual_seed(0))
        samples = Samples(letters, letters % 2)
        return Data(samples, samples, ("even", "odd"))

    def build(self) -> nn.Module:
        net = nn.Sequential()
        net.add_module("embed", Embed(8, 6))
        net.add_module("mix", nn.Sequential(nn.Conv1d(6, 6, 1), nn.ReLU()))
        net.add_module("head", Steps(6, 2))
        return net


@pytest.mark.parametrize("mode", ["vanilla", "u-shaped"])
@pytest.mark.parametrize("text", ["entropic(channels=3)", "reduction", "vq", "pca(channels=3)"])
def test_sequences_and_labels_that_stay(text: str, mode: str) -> None:
    torch.manual_seed(5)
    task = Doubles()
    data, model = task.load(), task.build()
    task.train(model, data.train, Training(epochs=20, lr=0.1), torch.Generator().manual_seed(1))
    assert task.evaluate(model, data.test).accuracy > 0.95
    one = lesson(task, data, model.eval(), None, text, mode)
    assert (one.cut.last is None) == (mode == "vanilla")
    how = settings(epochs_stage1=8, epochs_stage2=4)
    distill(one.cut, model, one.features, Batches(task, data.train, 16), how, 3)
    told = judge_cut(one.cut, task, data.test)
    assert told.accuracy > 0.8
    # Of a letter one bit matters, and three are all that there is.
    assert told.bytes_each < 12 * 4


def test_fewer_steps_cross_than_there_are() -> None:
    task = Doubles()
    data, model = task.load(), task.build()
    one = lesson(task, data, model, "embed/3", "entropic(channels=3)")
    merged, features, *_ = one.features(data.train.inputs[:5])
    assert merged.shape == (5, 6, 4)
    assert features.shape == (5, 6, 12)
    distill(one.cut, model, one.features, Batches(task, data.train, 64), settings(), 3)
    assert one.cut.device(data.train.inputs[:5]).shape == (5, 3, 4)


class StopError(Exception):
    """What Ctrl-C is, somewhere in an epoch."""


class Interrupted(Batches):
    """Stops in the middle of an epoch."""

    left = 0

    def epoch(self, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in super().epoch(generator):
            Interrupted.left -= 1
            if not Interrupted.left:
                raise StopError
            yield batch


@pytest.mark.parametrize("after", [3, 12, 20, 38, 45])
def test_a_training_that_was_stopped_goes_on_to_the_same_bits(
    teacher: nn.Module, tmp_path: Path, after: int
) -> None:
    # Eight batches an epoch, and one epoch's before the first and after the third to measure on.
    how = settings(epochs_stage1=3, epochs_stage2=2)
    whole = learn(taught(teacher), how)
    task = Stripes()
    Interrupted.left = after
    one = taught(teacher)
    with pytest.raises(StopError):
        distill(
            one.cut,
            one.teacher,
            one.features,
            Interrupted(task, task.load().train, 32, augment=False),
            how,
            3,
            checkpoint=tmp_path,
        )
    told: list[tuple[str, int]] = []
    again = learn(
        taught(teacher),
        how,
        checkpoint=tmp_path,
        progress=lambda name, done, due, loss: told.append((name, done)),
    )
    assert same(whole, again)
    assert len(told) == {3: 5, 12: 5, 20: 4, 38: 3, 45: 2}[after]
    # Finished is finished.
    told.clear()
    finished = learn(
        taught(teacher), how, checkpoint=tmp_path, progress=lambda *_: told.append(("", 0))
    )
    assert not told
    assert same(whole, finished)
    assert [path.name for path in tmp_path.iterdir()] == ["distill.safetensors"]


def test_a_checkpoint_of_something_else_is_refused(teacher: nn.Module, tmp_path: Path) -> None:
    how = settings(epochs_stage1=1, epochs_stage2=0)
    learn(taught(teacher), how, checkpoint=tmp_path)
    with pytest.raises(ConfigError, match="another distillation"):
        learn(taught(teacher), settings(0.5, epochs_stage1=1), checkpoint=tmp_path)
    with pytest.raises(ConfigError, match="another network"):
        learn(taught(teacher, "entropic(channels=5,width=8)"), how, checkpoint=tmp_path)
    file = tmp_path / "distill.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ConfigError, match="cannot read"):
        learn(taught(teacher), how, checkpoint=tmp_path)
    file.write_bytes(b"\x80\x04no pickle")
    with pytest.raises(ConfigError, match="cannot read"):
        learn(taught(teacher), how, checkpoint=tmp_path)


def test_a_loss_that_is_not_finite_ends_it(teacher: nn.Module) -> None:
    with pytest.raises(ConfigError, match="smaller lr"):
        learn(taught(teacher), settings(lr=1e6))


def test_features_of_other_shapes_are_refused(teacher: nn.Module) -> None:
    one = taught(teacher)
    wrong = Lesson(one.cut, teacher, lambda inputs: [inputs])
    with pytest.raises(ConfigError, match="compare the same parts"):
        learn(wrong, settings())


@pytest.mark.parametrize(
    "changes",
    [{"beta": -1.0}, {"beta": float("nan")}, {"lr": 0.0}, {"batch_size": 0}, {"rounding": "up"}],
)
def test_settings_are_checked(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        DistillSettings(**changes)  # type: ignore[arg-type]


def test_generators_differ_by_every_number() -> None:
    seeds = {generator_of(*n).initial_seed() for n in [(0, 1, 2), (0, 2, 1), (1, 1, 2), (0, 1, 3)]}
    assert len(seeds) == 4


def federation(tmp_path: Path, workers: int = 1) -> Federation:
    config = SimulationConfig(
        task="digits", clients=3, seed=4, uplink="int8", partition="iid", workers=workers
    )
    recipe = CutRecipe("digits", "pool", "entropic(channels=4,width=8)")
    return Federation(
        config, recipe, settings(epochs_stage1=3, epochs_stage2=2, epochs_stage3=1, lr=5e-3)
    )


def digits_lesson(seed: int) -> Lesson:
    torch.manual_seed(seed)
    task = Digits()
    teacher = task.build()
    data = task.load()
    task.train(teacher, data.train, Training(epochs=4, lr=0.05), torch.Generator().manual_seed(1))
    return lesson(task, data, teacher, "pool", "entropic(channels=4,width=8)")


def test_clients_distill_on_what_they_hold(tmp_path: Path) -> None:
    one = digits_lesson(2)
    told: list[tuple[str, int]] = []
    moved = distill_federated(
        federation(tmp_path),
        one,
        tmp_path / "one",
        lambda name, done, due, loss: told.append((name, done)),
    )
    assert told == [
        ("features", 1),
        ("features", 2),
        ("features", 3),
        ("tail", 1),
        ("tail", 2),
        ("all", 1),
    ]
    assert moved.up > 0 < moved.down
    task = Digits()
    judged = judge_cut(one.cut, task, task.load().test)
    assert judged.accuracy > 0.7
    assert 0 < judged.bytes_each < 150


def test_clients_that_were_stopped_go_on(tmp_path: Path) -> None:
    one = digits_lesson(2)

    def stop(name: str, done: int, due: int, loss: float) -> None:
        if (name, done) == ("features", 2):
            raise StopError

    with pytest.raises(StopError):
        distill_federated(federation(tmp_path), one, tmp_path, stop)
    told: list[tuple[str, int]] = []
    again = digits_lesson(2)
    distill_federated(
        federation(tmp_path),
        again,
        tmp_path,
        lambda name, done, due, loss: told.append((name, done)),
    )
    assert told == [("features", 3), ("tail", 1), ("tail", 2), ("all", 1)]


def test_what_has_to_be_measured_is_not_for_clients(tmp_path: Path) -> None:
    torch.manual_seed(0)
    task = Digits()
    one = lesson(task, task.load(), task.build(), "pool", "reduction(channels=2)")
    with pytest.raises(ConfigError, match="measured on examples"):
        distill_federated(federation(tmp_path), one, tmp_path)
