"""A cut student beside the whole teacher that it came from, and what to compare of both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from flowerpress.compression import ConfigError
from flowerpress.compression.bottleneck import Cut
from flowerpress.compression.features import TableCodec
from flowerpress.simulations.split.networks import cut_network, parts_of
from flowerpress.simulations.split.tokens import Merge
from flowerpress.simulations.tasks import Data, Samples, Task

__all__ = ["Judgement", "Lesson", "judge_cut", "lesson"]

Forward = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Lesson:
    """``cut`` is to learn what ``teacher`` knows; ``features`` are the teacher's, to be met."""

    cut: Cut
    teacher: nn.Module
    features: Callable[[Tensor], Sequence[Tensor]]


@dataclass(frozen=True)
class Judgement:
    """``accuracy`` on what a coder really returned, and its bytes of an example (0: no tables)."""

    accuracy: float
    loss: float
    bytes_each: float


def lesson(
    task: Task,
    data: Data,
    teacher: nn.Module,
    at: str | None,
    bottleneck: str,
    mode: str = "vanilla",
) -> Lesson:
    """Return a student of ``teacher``, cut at ``at``; head and tail begin with its weights.

    Features are compared where the bottleneck ends and behind each part after it, to the scores.
    The bottleneck's weights are drawn from torch's own generator.

    Args:
        task: that ``teacher`` was trained for.
        data: of the task; tells the shape of an input.
        teacher: the task's network.
        at, bottleneck, mode: as ``cut_network`` takes them; ``at`` None: the task's own.

    Raises:
        ConfigError: the network cannot be cut like that.
    """
    place = at or task.cut_at
    if place is None:
        raise ConfigError(f"task {task.name} does not say where to cut its network: give a part")
    sample = task.prepare(data.train.inputs[:2])
    cut = cut_network(parts_of(deepcopy(teacher)), sample, place, bottleneck, mode)
    parts = parts_of(teacher)
    stop = [name for name, _ in parts].index(place.partition("/")[0].rpartition("-")[2]) + 1
    before = nn.Sequential(*(part for _, part in parts[:stop]))
    behind = [part for _, part in parts[stop:]]
    merge = next((part for part in cut.head.modules() if isinstance(part, Merge)), None)

    def features(inputs: Tensor) -> list[Tensor]:
        out = before(inputs)
        found = [out] if merge is None else [merge(out), out]
        for part in behind:
            out = part(out)
            found.append(out)
        return found

    return Lesson(cut, teacher, features)


@torch.no_grad()
def judge_cut(cut: Cut, task: Task, samples: Samples) -> Judgement:
    """Judge ``cut`` on what its coder returns, one stream for each of the task's batches."""
    for part in cut.parts():
        part.eval()
    tables = cut.bottleneck.tables(1)
    codec = None if tables is None else TableCodec(tables)
    written = 0

    def forward(inputs: Tensor) -> Tensor:
        nonlocal written
        latent = cut.device(inputs)
        if codec is not None:
            body = codec.encode(latent.numpy())
            written += len(body)
            latent = torch.from_numpy(codec.decode(body, tuple(latent.shape)))
        scores: Tensor = cut.server(latent)
        return scores if cut.last is None else cut.last(scores)

    told = task.evaluate(_Called(cut, forward), samples)
    return Judgement(told.accuracy, told.mean_loss, written / max(1, len(samples)))


class _Called(nn.Module):
    def __init__(self, cut: Cut, forward: Forward) -> None:
        super().__init__()
        self.parts = nn.ModuleList(cut.parts())
        self._forward = forward

    def forward(self, inputs: Tensor) -> Tensor:
        return self._forward(inputs)
