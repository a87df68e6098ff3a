"""A whole network that gets used to inputs with less in them, such as pictures of low quality."""

from __future__ import annotations

import math
from copy import deepcopy
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from flowerpress.simulations.split.augment import flipped_and_shifted
from flowerpress.simulations.split.distill import Tick, generator_of
from flowerpress.simulations.split.network_state import keep_network, resume_network
from flowerpress.simulations.tasks import Samples, Task

__all__ = ["retuned"]


def retuned(
    teacher: nn.Module,
    task: Task,
    clean: Samples,
    poor: Samples,
    *,
    epochs: int,
    lr: float = 1e-3,
    batch_size: int = 64,
    augment: bool = True,
    seed: int = 0,
    checkpoint: Path | None = None,
    tick: Tick | None = None,
) -> nn.Module:
    """Return a copy of ``teacher`` that learned to see in ``poor`` what it sees in ``clean``.

    The loss is the one that tunes the server's side of a cut network: half cross entropy, half
    the divergence from the teacher, who sees the clean inputs. Adam, along a cosine to zero.

    Args:
        teacher: prepared inputs to scores.
        task: prepares inputs.
        clean, poor: the same examples in the same order.
        epochs: passes over them; 0: the copy is as it was.
        lr: of the first step.
        batch_size: examples of a step.
        augment: images are mirrored and shifted, both alike.
        seed: of order and augmentation.
        checkpoint: a file for the state after each epoch, from which a training that was stopped
            goes on; None: nothing is kept.
        tick: told of each epoch.

    Raises:
        ConfigError: the file is of another training, or cannot be used.
    """
    student = deepcopy(teacher)
    for each in (teacher.eval(), student.train()):
        each.requires_grad_(each is student)
    optimizer = torch.optim.Adam(student.parameters(), lr=lr)
    told = {"epochs": epochs, "lr": lr, "batch_size": batch_size, "augment": augment, "seed": seed}
    done = resume_network(checkpoint, student, optimizer, told)
    each_epoch = -(-len(poor) // batch_size)
    steps, step = epochs * each_epoch, done * each_epoch
    for epoch in range(done, epochs):
        generator = generator_of(seed, 3, epoch)
        total = 0.0
        order = torch.randperm(len(poor), generator=generator)
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            inputs, seen = _alike(
                task.prepare(clean.inputs[batch]),
                task.prepare(poor.inputs[batch]),
                generator if augment else None,
            )
            with torch.no_grad():
                hoped = functional.log_softmax(teacher(inputs).flatten(0, -2), -1)
            own = functional.log_softmax(student(seen).flatten(0, -2), -1)
            divergence = functional.kl_div(own, hoped, reduction="batchmean", log_target=True)
            right = functional.nll_loss(own, poor.labels[batch].flatten())
            for group in optimizer.param_groups:
                group["lr"] = lr * 0.5 * (1 + math.cos(math.pi * step / steps))
            optimizer.zero_grad()
            loss = 0.5 * right + 0.5 * divergence
            torch.autograd.backward(loss)
            optimizer.step()
            total += float(loss.detach())
            step += 1
        keep_network(checkpoint, student, optimizer, told, epoch + 1)
        if tick is not None:
            tick("tuned", epoch + 1, epochs, total / each_epoch)
    teacher.requires_grad_()
    return student.eval()


def _alike(clean: Tensor, poor: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    if generator is None or clean.dim() != 4:
        return clean, poor
    both = flipped_and_shifted(torch.cat([clean, poor], 1), generator)
    return both[:, : clean.shape[1]], both[:, clean.shape[1] :]
