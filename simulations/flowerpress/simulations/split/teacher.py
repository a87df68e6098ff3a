"""Training a whole network on all the data of a task: the teacher of a cut one."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import nn
from torch.nn import functional

from flowerpress.compression import ConfigError
from flowerpress.simulations.checkpoints.atomic import written_whole
from flowerpress.simulations.fields import Fields, parse
from flowerpress.simulations.split.batches import Batches
from flowerpress.simulations.split.distill_state import restore
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
    done = _resume(folder, model, optimizer, schooling, seed)
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
        if folder is not None:
            _keep(folder, model, optimizer, schooling, seed, epoch + 1)
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


def _keep(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.AdamW,
    schooling: Schooling,
    seed: int,
    epoch: int,
) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make the folder {folder}: {error.strerror}") from error
    tensors = {f"model/{name}": value.contiguous() for name, value in model.state_dict().items()}
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"moments/{index}/{name}": value for name, value in moments.items()}
    state = {"schooling": asdict(schooling), "seed": seed, "epoch": epoch}
    # One file: weights and what they are of appear together or not at all.
    with written_whole(folder / "teacher.safetensors", force=True) as stream:
        stream.write(save(tensors, {"state": json.dumps(state)}))


def _resume(
    folder: Path | None,
    model: nn.Module,
    optimizer: torch.optim.AdamW,
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
        restore(
            optimizer,
            {k.removeprefix("moments/"): v for k, v in tensors.items() if k.startswith("moments/")},
        )
    except (RuntimeError, KeyError, ValueError) as error:
        raise ConfigError(f"{path}: is of another network: {error}") from error
    return fields.integer("epoch")
