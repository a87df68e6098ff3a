"""Training a whole network on all the data of a task: the teacher of a cut one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional

from flowerpress.compression import ConfigError
from flowerpress.simulations.checkpoints.atomic import written_whole
from flowerpress.simulations.fields import Fields, parse
from flowerpress.simulations.split.augment import flipped_and_shifted
from flowerpress.simulations.tasks import Data, Task

__all__ = ["Schooling", "Tick", "schooled_batches", "train_teacher"]

Tick = Callable[[str, int, int, float], None]
"""Called after each epoch with what is trained, how many epochs are done and due, and the loss."""


@dataclass(frozen=True)
class Schooling:
    """How a network is trained centrally: Nesterov's momentum, a rate that rises and falls.

    ``lr`` is reached after a fifth of the steps and falls to zero along a cosine (Smith & Topin,
    "Super-Convergence", 2018). ``augment``: images are flipped and shifted.
    """

    epochs: int = 10
    batch_size: int = 128
    lr: float = 0.4
    momentum: float = 0.9
    weight_decay: float = 5e-4
    augment: bool = True
    smoothing: float = 0.05

    def rate(self, step: int, steps: int) -> float:
        """Return the learning rate of a step."""
        warm = max(1, steps // 5)
        if step < warm:
            return self.lr * (step + 1) / warm
        along = torch.tensor((step - warm) / max(1, steps - warm))
        return self.lr * float(0.5 * (1 + torch.cos(torch.pi * along)))


def schooled_batches(
    task: Task, data: Data, schooling: Schooling, generator: torch.Generator
) -> list[tuple[Callable[[], Tensor], Tensor]]:
    """Return one epoch's batches, in random order: a function that makes the inputs, and labels."""
    order = torch.randperm(len(data.train), generator=generator)
    out: list[tuple[Callable[[], Tensor], Tensor]] = []
    for start in range(0, len(order), schooling.batch_size):
        batch = order[start : start + schooling.batch_size]

        def inputs(batch: Tensor = batch) -> Tensor:
            prepared = task.prepare(data.train.inputs[batch])
            images = prepared.dim() == 4 and schooling.augment
            return flipped_and_shifted(prepared, generator) if images else prepared

        out.append((inputs, data.train.labels[batch]))
    return out


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
    velocities = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    done = _resume(folder, model, velocities, schooling, seed)
    model.train()
    for epoch in range(done, schooling.epochs):
        generator = torch.Generator().manual_seed((seed << 16) + epoch)
        batches = schooled_batches(task, data, schooling, generator)
        total = 0.0
        for index, (inputs, labels) in enumerate(batches):
            scores = model(inputs())
            loss = functional.cross_entropy(
                scores.flatten(0, -2), labels.flatten(), label_smoothing=schooling.smoothing
            )
            model.zero_grad()
            torch.autograd.backward(loss)
            step = epoch * len(batches) + index
            _step(
                model, velocities, schooling, schooling.rate(step, schooling.epochs * len(batches))
            )
            total += float(loss.detach())
        if folder is not None:
            _keep(folder, model, velocities, schooling, seed, epoch + 1)
        if tick is not None:
            tick("teacher", epoch + 1, schooling.epochs, total / len(batches))
    return model.eval()


@torch.no_grad()
def _step(
    model: nn.Module, velocities: dict[str, Tensor], schooling: Schooling, rate: float
) -> None:
    for name, parameter in model.named_parameters():
        if parameter.grad is None:
            continue
        decay = schooling.weight_decay if parameter.dim() > 1 else 0.0
        move = parameter.grad.add(parameter, alpha=decay)
        velocity = velocities[name].mul_(schooling.momentum).add_(move)
        parameter.add_(move.add(velocity, alpha=schooling.momentum), alpha=-rate)


def _keep(
    folder: Path,
    model: nn.Module,
    velocities: dict[str, Tensor],
    schooling: Schooling,
    seed: int,
    epoch: int,
) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make the folder {folder}: {error.strerror}") from error
    tensors = {f"model/{name}": value.contiguous() for name, value in model.state_dict().items()}
    tensors |= {f"velocity/{name}": value for name, value in velocities.items()}
    state = {"schooling": asdict(schooling), "seed": seed, "epoch": epoch}
    # One file: weights and what they are of appear together or not at all.
    with written_whole(folder / "teacher.safetensors", force=True) as stream:
        stream.write(save(tensors, {"state": json.dumps(state)}))


def _resume(
    folder: Path | None,
    model: nn.Module,
    velocities: dict[str, Tensor],
    schooling: Schooling,
    seed: int,
) -> int:
    path = None if folder is None else folder / "teacher.safetensors"
    if path is None or not path.is_file():
        return 0
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get("state", "")
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"cannot read {path}: {error}; remove it to begin anew") from error
    fields = Fields(parse(text, str(path)), str(path))
    if fields.raw("schooling") != asdict(schooling) or fields.integer("seed") != seed:
        raise ConfigError(f"{path}: is of another training; remove it, or name another folder")
    try:
        model.load_state_dict(
            {k.removeprefix("model/"): v for k, v in tensors.items() if k.startswith("model/")}
        )
        for name, velocity in velocities.items():
            velocity.copy_(tensors[f"velocity/{name}"])
    except (RuntimeError, KeyError) as error:
        raise ConfigError(f"{path}: is of another network: {error}") from error
    return fields.integer("epoch")
