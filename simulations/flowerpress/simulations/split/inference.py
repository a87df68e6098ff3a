"""Split inference measured: what accuracy how many bytes buy, for cut networks and their rivals.

One seed at a time. A teacher is trained, every method learns from it for as many epochs, and every
point is really coded and decoded. What is done stays done: a command that was stopped goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from flowerpress.compression import ConfigError
from flowerpress.compression.features import FeatureCodec, feature_codec
from flowerpress.simulations.split.asked import Inference, claim
from flowerpress.simulations.split.batches import Batches
from flowerpress.simulations.split.curve import Point, add_point, read_points
from flowerpress.simulations.split.distill import distill
from flowerpress.simulations.split.distill_settings import DistillSettings
from flowerpress.simulations.split.distill_state import parts_of_cut
from flowerpress.simulations.split.judged import Coded, codec_of, hits, judge_coded, over_batches
from flowerpress.simulations.split.lesson import Lesson, lesson
from flowerpress.simulations.split.retuned import retuned
from flowerpress.simulations.split.rivals import FORMATS, as_pictures, is_images
from flowerpress.simulations.split.stored import CutRecipe, save_cut
from flowerpress.simulations.split.teacher import Tick, train_teacher
from flowerpress.simulations.tasks import Data, Samples, Task

__all__ = ["POINTS", "measure_seed", "seed_folder"]

POINTS = "points.csv"
_STATE = "state"
Row = tuple[str, str, float, float, float]

Said = Callable[[Point], None]


def seed_folder(folder: Path, seed: int) -> Path:
    """Return the folder of one seed."""
    return folder / f"seed-{seed}"


def measure_seed(
    task: Task,
    data: Data,
    wanted: Inference,
    seed: int,
    folder: Path,
    *,
    tick: Callable[[str], Tick] | None = None,
    said: Said | None = None,
) -> list[Point]:
    """Measure all points of one seed that its folder does not hold yet; return all of them.

    Args:
        task: builds networks and prepares inputs.
        data: training and test examples.
        wanted: what to compare.
        seed: of weights, order and noise.
        folder: of the comparison; ``seed-<seed>`` in it is this seed's.
        tick: told the name of a training, it returns what is told of its epochs.
        said: told of each new point.

    Raises:
        ConfigError: the folder holds another comparison, or the network cannot be cut like that.
    """
    own = seed_folder(folder, seed)
    claim(own, task, wanted, seed)
    points = read_points(own / POINTS)
    run = _Run(task, _reduced(data, wanted.examples), wanted, seed, own, tick, set())
    run.done = {point.key for point in points}
    for method, setting, accuracy, each, alone in run.all():
        point = Point(
            seed, method, setting, accuracy, each, alone, wanted.batch, len(run.data.test)
        )
        add_point(own / POINTS, point)
        run.done.add(point.key)
        points.append(point)
        if said is not None:
            said(point)
    return points


@dataclass
class _Run:
    """One seed under way; ``all`` yields what is not in ``done``."""

    task: Task
    data: Data
    wanted: Inference
    seed: int
    folder: Path
    tick: Callable[[str], Tick] | None
    done: set[tuple[str, str]]

    def all(self) -> Iterator[Row]:
        teacher = train_teacher(
            self.task,
            self.data,
            self.wanted.schooling,
            self.seed,
            folder=self.folder / _STATE / "teacher",
            tick=self._told("teacher"),
        )
        yield from self._teacher(teacher)
        yield from self._pictures(teacher)
        yield from self._untrained(teacher)
        yield from self._entropic(teacher)
        yield from self._others(teacher)

    def _told(self, name: str) -> Tick | None:
        return None if self.tick is None else self.tick(name)

    def _due(self, method: str, setting: str) -> bool:
        return method in self.wanted.methods and (method, setting) not in self.done

    def _seen(self, model: nn.Module, samples: Samples) -> float:
        def one(inputs: torch.Tensor, labels: torch.Tensor) -> np.ndarray:
            return hits(model(inputs), labels)

        found = over_batches(self.task, samples, self.wanted.batch, one)
        return float(np.concatenate(found).mean())

    def _teacher(self, teacher: nn.Module) -> Iterator[Row]:
        test = self.data.test
        size = float(test.inputs[0].numel() * test.inputs.element_size())
        if self._due("teacher", "input"):
            yield "teacher", "input", self._seen(teacher, test), size, size
        if self._due("teacher, tuned", "input"):
            tuned = self._tuned(teacher, self.data.train, "tuned-input")
            yield "teacher, tuned", "input", self._seen(tuned, test), size, size

    def _pictures(self, teacher: nn.Module) -> Iterator[Row]:
        if not is_images(self.data.test):
            return
        count = len(self.data.test)
        for form in FORMATS:
            tuned = f"{form}, tuned"
            for quality in sorted({*self.wanted.qualities, *self.wanted.tuned_qualities}):
                setting = f"quality {quality}"
                ways = [way for way in (form, tuned) if self._due(way, setting)]
                ways = [
                    way for way in ways if way == form or quality in self.wanted.tuned_qualities
                ]
                if not ways:
                    continue
                made = as_pictures(self.data.test, form, quality)
                sizes = made.bare / count, made.files / count
                for way in ways:
                    model = teacher
                    if way != form:
                        seen = as_pictures(self.data.train, form, quality, count=False).samples
                        model = self._tuned(teacher, seen, f"tuned-{form}-{quality}")
                    yield way, setting, self._seen(model, made.samples), *sizes

    def _tuned(self, teacher: nn.Module, seen: Samples, name: str) -> nn.Module:
        return retuned(
            teacher,
            self.task,
            self.data.train,
            seen,
            epochs=self.wanted.picture_epochs,
            batch_size=self.wanted.batch_size,
            augment=self.wanted.schooling.augment,
            seed=self.seed,
            checkpoint=self.folder / _STATE / f"{name}.safetensors",
            tick=self._told(name),
        )

    def _untrained(self, teacher: nn.Module) -> Iterator[Row]:
        """Features as they are, in fewer bits: behind the part at which bottlenecks end."""
        wanted = self.wanted
        at = wanted.behind(self.task)
        for text in ("int8", "fp16", "none"):
            if self._due("features", text):
                taught = lesson(self.task, self.data, teacher, at, "none")
                yield "features", text, *self._coded(taught, feature_codec(text))
        texts = [("pca", f"pca(channels={count})") for count in wanted.axes]
        texts += [("plain", f"plain(bits={bits})") for bits in wanted.bits]
        for method, text in texts:
            if self._due(method, text):
                try:
                    taught = lesson(self.task, self.data, teacher, at, text)
                except ConfigError:  # more axes than channels
                    continue
                distill(
                    taught.cut,
                    teacher,
                    taught.features,
                    self._batches(),
                    DistillSettings(0.0, 0, 0, batch_size=wanted.batch_size),
                    self.seed,
                )
                yield method, text, *self._coded(taught)

    def _entropic(self, teacher: nn.Module) -> Iterator[Row]:
        wanted = self.wanted
        text = wanted.learned
        if not any(self._due("entropic", f"beta {beta:g}") for beta in wanted.betas):
            return
        first = self._student(teacher, text, "entropic", wanted.alone(wanted.betas[0]))
        start = {n: v.clone() for n, v in parts_of_cut(first.cut).state_dict().items()}
        for beta in wanted.betas:
            if self._due("entropic", f"beta {beta:g}"):
                folder = f"beta-{beta:g}"
                taught = self._student(teacher, text, folder, wanted.joint(beta), start)
                self._save(taught, text, folder)
                yield "entropic", f"beta {beta:g}", *self._coded(taught)

    def _others(self, teacher: nn.Module) -> Iterator[Row]:
        wanted = self.wanted
        texts = [
            ("reduction", f"reduction(channels={count},bits=8)") for count in wanted.reductions
        ]
        texts += [("vq", f"vq(codes={count})") for count in wanted.codes]
        for method, text in texts:
            ways = [method, f"{method}, packed"] if method == "reduction" else [method]
            ways = [way for way in ways if self._due(way, text)]
            if not ways:
                continue
            taught = self._student(teacher, text, text, wanted.settings())
            accuracy, each, alone, elements = self._coded_whole(taught)
            for way in ways:
                # Eight bits a value: as many bytes as values.
                sizes = (each, alone) if way == method else (float(elements),) * 2
                yield way, text, accuracy, *sizes

    def _student(
        self,
        teacher: nn.Module,
        text: str,
        folder: str,
        settings: DistillSettings,
        start: dict[str, torch.Tensor] | None = None,
    ) -> Lesson:
        torch.manual_seed(self.seed)
        taught = lesson(self.task, self.data, teacher, self.wanted.at, text)
        if start is not None:
            parts_of_cut(taught.cut).load_state_dict(start)
        distill(
            taught.cut,
            teacher,
            taught.features,
            self._batches(),
            settings,
            self.seed,
            self._told(f"{text}, {folder}" if folder != text else text),
            self.folder / _STATE / folder,
        )
        return taught

    def _batches(self) -> Batches:
        return Batches(
            self.task, self.data.train, self.wanted.batch_size, self.wanted.schooling.augment
        )

    def _save(self, taught: Lesson, text: str, name: str) -> None:
        at = self.wanted.at or self.task.cut_at or ""
        save_cut(taught.cut, CutRecipe(self.task.name, at, text), self.folder / name)

    def _coded(
        self, taught: Lesson, codec: FeatureCodec | None = None
    ) -> tuple[float, float, float]:
        return self._coded_whole(taught, codec)[:3]

    def _coded_whole(
        self, taught: Lesson, codec: FeatureCodec | None = None
    ) -> tuple[float, float, float, int]:
        codec = codec or codec_of(taught.cut)
        assert codec is not None
        got: Coded = judge_coded(
            taught.cut, codec, self.task, self.data.test, self.wanted.batch, self.seed
        )
        return got.accuracy, got.bytes_each, got.bytes_alone, got.elements


def _reduced(data: Data, examples: int | None) -> Data:
    if examples is None or examples >= len(data.train):
        return data
    return Data(data.train.take(np.arange(examples)), data.test, data.classes)
