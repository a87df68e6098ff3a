"""The examples that a network is distilled on, in batches, in an order drawn anew each epoch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from flowerpress.compression import ConfigError
from flowerpress.simulations.split.augment import flipped_and_shifted
from flowerpress.simulations.tasks import Samples, Task

__all__ = ["Batches"]


@dataclass(frozen=True, eq=False)
class Batches:
    """``samples`` of ``task`` in batches of ``batch_size``; the last may be smaller.

    ``augment``: images, (B, C, H, W) once prepared, are mirrored and shifted. ``len`` is the number
    of batches of an epoch.

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
            if self.augment and inputs.dim() == 4:
                inputs = flipped_and_shifted(inputs, generator)
            yield inputs, self.samples.labels[batch]
