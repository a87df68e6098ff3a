"""Examples as a task holds them: inputs, labels, owners; and the two sets of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowerpress.compression.errors import ConfigError

__all__ = ["Data", "Samples"]


@dataclass(frozen=True, eq=False)
class Samples:
    """Examples with their labels, in the smallest form that holds them (uint8 for images).

    ``inputs``: (N, ...), any dtype. ``labels``: int64, (N,), or (N, T) for one label per step of
    a sequence. ``groups``: int64 (N,), the natural owner of each example (a writer, a speaker),
    or None where there is none. Raises ConfigError if these do not fit each other.
    """

    inputs: Tensor
    labels: Tensor
    groups: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        if self.labels.dtype != torch.int64:
            raise ConfigError(
                f"labels of samples are {self.labels.dtype}; make them int64 with labels.long()"
            )
        if self.labels.ndim not in (1, 2):
            raise ConfigError(
                f"labels have shape {tuple(self.labels.shape)}; give one label per example, (N,), "
                "or one per step of a sequence, (N, T)"
            )
        if self.inputs.ndim < 1 or len(self.inputs) != len(self.labels):
            raise ConfigError(
                f"inputs of shape {tuple(self.inputs.shape)} and labels of shape "
                f"{tuple(self.labels.shape)}: the first axis of both must count the examples"
            )
        if self.groups is not None and (
            self.groups.shape != (len(self.labels),) or self.groups.dtype != np.int64
        ):
            raise ConfigError(
                f"groups are {self.groups.dtype} of shape {self.groups.shape}; "
                f"give one int64 per example, ({len(self.labels)},)"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: NDArray[np.int64]) -> Samples:
        """Return a copy of the examples at ``indices`` (int64), in that order."""
        chosen = torch.from_numpy(indices)
        groups = None if self.groups is None else self.groups[indices]
        return Samples(self.inputs[chosen], self.labels[chosen], groups)


@dataclass(frozen=True, eq=False)
class Data:
    """What a task loads: examples to learn from, examples to judge by, and the classes' names.

    Raises ConfigError if there are no examples, or a label names no class.
    """

    train: Samples
    test: Samples
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        for part, samples in (("train", self.train), ("test", self.test)):
            if samples.labels.numel() == 0:
                raise ConfigError(f"{part}: there are no examples")
            low, high = int(samples.labels.min()), int(samples.labels.max())
            if low < 0 or high >= len(self.classes):
                wrong = low if low < 0 else high
                raise ConfigError(
                    f"{part}: label {wrong} names none of the {len(self.classes)} classes; "
                    f"labels are positions in `classes`, 0 to {len(self.classes) - 1}"
                )
