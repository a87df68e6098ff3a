"""A whole network in training, on disk between epochs: weights, moments, and what they belong to.

One safetensors file that appears whole or not at all, and holds nothing that runs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import nn

from flowerpress.compression import ConfigError
from flowerpress.simulations.checkpoints.atomic import written_whole
from flowerpress.simulations.fields import Fields, parse
from flowerpress.simulations.split.distill_state import restore

__all__ = ["keep_network", "resume_network"]

_WEIGHTS, _MOMENTS = "model/", "moments/"


def keep_network(
    path: Path | None,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    told: Mapping[str, Any],
    epoch: int,
) -> None:
    """Write the state after ``epoch`` epochs; without a path, do nothing.

    Args:
        path: of the file; its folder is made.
        model: whose weights are kept.
        optimizer: whose state is tensors.
        told: what tells this training from others, as JSON has it.
        epoch: epochs that are done.

    Raises:
        ConfigError: it cannot be written.
    """
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make the folder {path.parent}: {error.strerror}") from error
    tensors = {_WEIGHTS + name: value.contiguous() for name, value in model.state_dict().items()}
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"{_MOMENTS}{index}/{name}": value for name, value in moments.items()}
    with written_whole(path, force=True) as stream:
        stream.write(save(tensors, {"state": json.dumps({**told, "epoch": epoch})}))


def resume_network(
    path: Path | None,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    told: Mapping[str, Any],
) -> int:
    """Load what ``keep_network`` wrote, if there is something; return how many epochs are done.

    Raises:
        ConfigError: the file is damaged, or of another training or network.
    """
    if path is None or not path.is_file():
        return 0
    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get("state", "")
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"cannot read {path}: {error}; remove it to begin anew") from error
    fields = Fields(parse(text, str(path)), str(path))
    if any(fields.raw(name) != value for name, value in told.items()):
        raise ConfigError(f"{path}: is of another training; remove it, or name another folder")

    def under(prefix: str) -> dict[str, torch.Tensor]:
        return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

    try:
        model.load_state_dict(under(_WEIGHTS))
        restore(optimizer, under(_MOMENTS))
    except (RuntimeError, KeyError, ValueError) as error:
        raise ConfigError(f"{path}: is of another network: {error}") from error
    return fields.integer("epoch")
