"""Training a whole network on all the data of a task: the teacher of a cut one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from flowerpress.simulations.split.batches import Batches
from flowerpress.simulations.split.network_state import keep_network, resume_network
from flowerpress.simulations.tasks import Data, Task

__all__ = ["Schooling", "Tick", "train_teacher"]

Tick = Callable[[str, int, int, float], None]
"""Called after each epoch with what is trained, how many epochs are done and due, and the loss."""


@dataclass(frozen=True)
class Schooling:
    """How a network is trained centrally: AdamW at a rate that rises and falls.

    ``lr`` is reached after a fifth of the steps and falls to zero along a cosine (Smith & Topin,
    "Super-Convergence", 2018). Weights with two axes and more decay by ``weight_decay`` (Loshchilov
    & Hutter, "Decoupled Weight Decay Regularization", 2019). ``augment``: images are flipped and
    shifted. ``smoothing``: of the labels.
    """

    epochs: int = 10
    batch_size: int = 64
    lr: float = 3e-3
    weight_decay: float = 0.05
    augment: bool = True
    smoothing: float = 0.05

    def rate(self, step: int, steps: int) -> float:
        """Return the learning rate of a step."""
        warm = max(1, steps // 5)
        if step < warm:
            return self.lr * (step + 1) / warm
        return self.lr * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def train_teacher(
    task: Task,
    data: Data,
    schooling: Schooling,
    seed: int,
    *,
    folder: Path | None = None,
    tick: Tick | None = None,
) -> nn.Module:
    """Return the task's network, trained; a training that was cut goes on from its last epoch.

    Args:
        task: builds the network.
        data: what it learns.
        schooling: how.
        seed: of the weights, the order and the augmentation.
        folder: for the checkpoint of each epoch; None: nothing is kept.
        tick: told of each epoch.

    Raises:
        ConfigError: the folder holds another training, or cannot be used.
    """
    torch.manual_seed(seed)
    model = task.build()
    optimizer = _optimizer(model, schooling)
    path = None if folder is None else folder / "teacher.safetensors"
    told = {"schooling": asdict(schooling), "seed": seed}
    done = resume_network(path, model, optimizer, told)
    batches = Batches(task, data.train, schooling.batch_size, schooling.augment)
    model.train()
    for epoch in range(done, schooling.epochs):
        generator = torch.Generator().manual_seed((seed << 16) + epoch)
        total = 0.0
        for index, (inputs, labels) in enumerate(batches.epoch(generator)):
            loss = functional.cross_entropy(
                model(inputs).flatten(0, -2), labels.flatten(), label_smoothing=schooling.smoothing
            )
            step = epoch * len(batches) + index
            for group in optimizer.param_groups:
                group["lr"] = schooling.rate(step, schooling.epochs * len(batches))
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            total += float(loss.detach())
        keep_network(path, model, optimizer, told, epoch + 1)
        if tick is not None:
            tick("teacher", epoch + 1, schooling.epochs, total / len(batches))
    return model.eval()


def _optimizer(model: nn.Module, schooling: Schooling) -> torch.optim.AdamW:
    weights = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() <= 1]
    groups = [
        {"params": weights, "weight_decay": schooling.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=schooling.lr)
