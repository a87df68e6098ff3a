"""What every task is made of: samples, how to train on them, and how to judge a model.

A task of one's own needs :meth:`Task.load` and :meth:`Task.build`, and nothing else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from flowerpress.compression.errors import ConfigError
from flowerpress.simulations.tasks.descent import Descent
from flowerpress.simulations.tasks.samples import Data, Samples

__all__ = ["Data", "Evaluation", "Samples", "Task", "TrainResult", "Training"]


@dataclass(frozen=True)
class Training:
    """How a client trains in one round: stochastic gradient descent with momentum.

    ``max_samples``: at most so many of a client's examples are used in a round, a new choice each
    time; None uses all of them.
    """

    epochs: int = 1
    batch_size: int = 32
    lr: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 0.0
    max_samples: int | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "max_samples"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"training: {name} is {value}; it must be at least 1")
        for name in ("lr", "momentum", "weight_decay"):
            if not 0.0 <= getattr(self, name) < float("inf"):
                raise ConfigError(
                    f"training: {name} is {getattr(self, name)}; it must be a number from 0 up"
                )


@dataclass(frozen=True)
class TrainResult:
    """``loss``: mean over every example and epoch of the round, as seen while training.
    ``examples``: how many different examples were used, the client's weight in FedAvg.
    """

    loss: float
    examples: int


@dataclass(frozen=True, eq=False)
class Evaluation:
    """How a model does on N examples of C classes.

    Per example: ``loss`` float32 (N,); ``correct`` float32 (N,), 0 or 1, or for sequences the
    fraction of right steps. Per class: ``right`` and ``total``, int64 (C,).
    """

    loss: NDArray[np.float32]
    correct: NDArray[np.float32]
    right: NDArray[np.int64]
    total: NDArray[np.int64]

    @property
    def accuracy(self) -> float:
        """Fraction of right labels; NaN where there were no examples."""
        return self.mean(self.correct)

    @property
    def mean_loss(self) -> float:
        """Mean loss of an example; NaN where there were no examples."""
        return self.mean(self.loss)

    @property
    def recall(self) -> NDArray[np.float64]:
        """Per class the fraction of its labels that were found (C,); NaN for an absent class."""
        found = np.full(self.total.shape, np.nan)
        np.divide(self.right, self.total, out=found, where=self.total > 0)
        return found

    @staticmethod
    def mean(values: NDArray[np.float32]) -> float:
        """Mean in double precision; NaN of nothing."""
        return float(values.mean(dtype=np.float64)) if values.size else float("nan")


class Task(ABC):
    """A learning problem that a simulation can run.

    ``folder`` is where the user said the data is (None: nowhere in particular). Class attributes
    give the defaults of a run: ``training``, ``partition`` (see ``partition.split``) and
    ``clients``. ``name`` is the class's own name in lower case unless it is set.
    """

    name: ClassVar[str] = "task"
    training: ClassVar[Training] = Training()
    partition: ClassVar[str] = "iid"
    clients: ClassVar[int] = 10
    cut_at: ClassVar[str | None] = None
    """Where split training cuts the network unless the user says otherwise."""
    evaluation_batch: ClassVar[int] = 250
    """Examples in one forward pass of ``evaluate``; bounds its memory, not its result."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "name" not in vars(cls):
            cls.name = cls.__name__.lower()

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder

    @abstractmethod
    def load(self) -> Data:
        """Read the data. Raises ConfigError when it is not there, saying how to get it."""

    @abstractmethod
    def build(self) -> nn.Module:
        """Return a new model that maps prepared inputs (B, ...) to scores (B, C) or (B, T, C).

        Its weights may be drawn from torch's own generator, which the caller has seeded.
        """

    def prepare(self, inputs: Tensor) -> Tensor:
        """Turn stored inputs of one batch into what the model takes. Default: as they are."""
        return inputs

    def train(
        self, model: nn.Module, samples: Samples, training: Training, generator: torch.Generator
    ) -> TrainResult:
        """Train ``model`` in place for one round: SGD on the cross entropy, all momentum new.

        The order of examples is drawn from ``generator`` and from nowhere else, so with one torch
        thread the same arguments give the same bits. Raises ConfigError if there are no samples.
        """
        if len(samples) == 0:
            raise ConfigError(
                f"task {self.name}: a client has no examples to train on; use fewer clients"
            )
        device = next(model.parameters()).device
        descent = Descent(model.parameters(), training.lr, training.momentum, training.weight_decay)
        model.train()
        total = torch.zeros((), dtype=torch.float64, device=device)
        seen = 0
        for inputs, labels in self.batches(samples, training, generator):
            scores, labels = model(inputs.to(device)), labels.to(device)
            loss = functional.cross_entropy(scores.flatten(0, -2), labels.flatten())
            descent.forget_gradients()
            torch.autograd.backward(loss)
            descent.step()
            total += loss.detach() * len(inputs)
            seen += len(inputs)
        return TrainResult(float(total) / seen, seen // training.epochs)

    def batches(
        self, samples: Samples, training: Training, generator: torch.Generator
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of one round: prepared inputs (B, ...) and their labels (B, ...).

        Which examples, and their order, is drawn from ``generator`` and from nowhere else.
        """
        used = torch.randperm(len(samples), generator=generator)[: training.max_samples]
        for _ in range(training.epochs):
            order = used[torch.randperm(len(used), generator=generator)]
            for start in range(0, len(order), training.batch_size):
                batch = order[start : start + training.batch_size]
                yield self.prepare(samples.inputs[batch]), samples.labels[batch]

    def evaluate(self, model: nn.Module, samples: Samples) -> Evaluation:
        """Judge ``model`` on each of ``samples``; changes nothing in it.

        No samples give empty arrays, and zeros for every class.
        """
        device = next(model.parameters()).device
        before = model.training
        model.eval()
        try:
            with torch.inference_mode():
                return self._evaluate(model, samples, device)
        finally:
            model.train(before)

    def _evaluate(self, model: nn.Module, samples: Samples, device: torch.device) -> Evaluation:
        if len(samples) == 0:
            # One blank example tells how many classes the model scores.
            blank = self.prepare(samples.inputs.new_zeros((1, *samples.inputs.shape[1:])))
            none = np.zeros(0, np.float32)
            counts = np.zeros(model(blank.to(device)).shape[-1], np.int64)
            return Evaluation(none, none, counts, counts)
        losses, hits = [], []
        classes = 0
        for start in range(0, len(samples), self.evaluation_batch):
            batch = slice(start, start + self.evaluation_batch)
            scores = model(self.prepare(samples.inputs[batch]).to(device))
            labels = samples.labels[batch].to(device)
            classes = scores.shape[-1]
            loss = functional.cross_entropy(
                scores.flatten(0, -2), labels.flatten(), reduction="none"
            )
            losses.append(loss.view(labels.shape).cpu())
            hits.append((scores.argmax(-1) == labels).cpu())
        loss, hit = torch.cat(losses), torch.cat(hits)
        labels = samples.labels.flatten()
        return Evaluation(
            loss=loss.reshape(len(samples), -1).mean(1).numpy(),
            correct=hit.reshape(len(samples), -1).float().mean(1).numpy(),
            right=torch.bincount(labels[hit.flatten()], minlength=classes).numpy(),
            total=torch.bincount(labels, minlength=classes).numpy(),
        )
