"""The examples that a network is distilled on, in batches, in an order drawn anew each epoch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from flowerpress.compression import ConfigError
from flowerpress.simulations.split.augment import flipped_and_shifted
from flowerpress.simulations.tasks import Samples, Task

__all__ = ["Batches", "in_colour"]


@dataclass(frozen=True, eq=False)
class Batches:
    """``samples`` of ``task`` in batches of ``batch_size``; the last may be smaller.

    ``augment``: images in colour, (B, 3, H, W) once prepared, are mirrored and shifted; others may
    be writing. ``len`` is the number of batches of an epoch.

    Raises:
        ConfigError: there are no samples.
    """

    task: Task
    samples: Samples
    batch_size: int = 64
    augment: bool = True

    def __post_init__(self) -> None:
        if not len(self.samples):
            raise ConfigError("there are no examples to distill on; use fewer clients")

    def __len__(self) -> int:
        return -(-len(self.samples) // self.batch_size)

    def epoch(self, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield prepared inputs (B, ...) and labels (B, ...), all drawn from ``generator``."""
        order = torch.randperm(len(self.samples), generator=generator)
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            inputs = self.task.prepare(self.samples.inputs[batch])
            if self.augment and in_colour(inputs):
                inputs = flipped_and_shifted(inputs, generator)
            yield inputs, self.samples.labels[batch]


def in_colour(inputs: Tensor) -> bool:
    """Whether prepared inputs are images of three colours."""
    return inputs.dim() == 4 and inputs.shape[1] == 3
