"""Federated averaging with nothing around it: what clients change, round by round."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from flowerpress.simulations.partition import split
from flowerpress.simulations.tasks import Samples, Task

__all__ = ["Change", "Recipe", "rounds"]

Change = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Recipe:
    """How a federation learns. ``steps``: local steps of one client in one round.

    ``saved``: the rounds whose update is wanted. ``warmup``: steps on all data with ``optimizer``
    before round 0, in place of the many rounds that a model has seen late in its training.
    ``fresh``: examples that a client chooses anew each round; None takes all that it has.
    """

    task: Callable[[Path | None], Task]
    partition: str = "iid"
    clients: int = 4
    saved: tuple[int, ...] = (1,)
    optimizer: str = "sgd"
    lr: float = 0.02
    batch: int = 32
    steps: int = 20
    fresh: int | None = None
    warmup: int = 0


def rounds(
    recipe: Recipe, folder: Path | None, seed: int
) -> Iterator[tuple[int, Change, Change | None]]:
    """Yield (round, update of the first client, averaged update of the round before).

    Only for the rounds in ``recipe.saved``, in their order. Clients train one after the other on
    one thread; the same seed gives the same updates on one kind of processor.
    """
    torch.manual_seed(seed)
    task = recipe.task(folder)
    data = task.load()
    shares = split(recipe.partition, data, recipe.clients, seed)
    model = task.build()
    generator = torch.Generator().manual_seed(seed)
    if recipe.warmup:
        _train(recipe, task, model, data.train, recipe.warmup, generator)
    clients = [data.train.take(mine) for mine in shares.train]
    previous: Change | None = None
    for number in range(max(recipe.saved) + 1):
        changes = []
        # Of the last round, nobody needs what the others do.
        wanted = clients[:1] if number == max(recipe.saved) else clients
        for client, samples in enumerate(wanted):
            generator.manual_seed(hash((seed, number, client)) & 0xFFFFFFFF)
            local = copy.deepcopy(model)
            _train(recipe, task, local, samples, recipe.steps, generator)
            changes.append(_difference(local, model))
        if number in recipe.saved:
            yield number, changes[0], previous
        previous = _average(changes)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.add_(torch.from_numpy(previous[name]))


def _train(
    recipe: Recipe,
    task: Task,
    model: nn.Module,
    samples: Samples,
    steps: int,
    generator: torch.Generator,
) -> None:
    """Take ``steps`` steps on the cross entropy; the optimizer's state is new."""
    optimizer = _optimizer(recipe, model)
    used = torch.randperm(len(samples), generator=generator)[: recipe.fresh]
    order = used
    at = len(order)
    for _ in range(steps):
        if at + recipe.batch > len(order):
            order, at = used[torch.randperm(len(used), generator=generator)], 0
        batch = order[at : at + recipe.batch]
        at += recipe.batch
        scores = model(task.prepare(samples.inputs[batch]))
        loss = functional.cross_entropy(scores.flatten(0, -2), samples.labels[batch].flatten())
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()


def _optimizer(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    parameters = list(model.parameters())
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=recipe.lr, momentum=0.9)
    if recipe.optimizer == "plain":
        return torch.optim.SGD(parameters, lr=recipe.lr)
    if recipe.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=recipe.lr)
    return torch.optim.AdamW(parameters, lr=recipe.lr, weight_decay=0.1)


def _difference(after: nn.Module, before: nn.Module) -> Change:
    start = dict(before.named_parameters())
    return {
        name: (parameter - start[name]).detach().numpy()
        for name, parameter in after.named_parameters()
    }


def _average(changes: list[Change]) -> Change:
    total = {name: np.zeros(array.shape) for name, array in changes[0].items()}
    for change in changes:
        for name, array in change.items():
            total[name] += array
    return {name: (array / len(changes)).astype(np.float32) for name, array in total.items()}
