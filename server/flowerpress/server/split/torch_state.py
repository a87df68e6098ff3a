"""Modules and optimizers as snapshots, and back: tensors of any dtype, as safetensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from flowerpress.compression import ConfigError
from flowerpress.protos.store import Snapshot

__all__ = ["pack_optimizer", "pack_tensors", "unpack_optimizer", "unpack_tensors"]

_TENSORS = "tensors"


def pack_tensors(tensors: Mapping[str, Tensor]) -> bytes:
    """Return tensors by name as bytes."""
    return save({name: value.detach().clone().contiguous() for name, value in tensors.items()})


def unpack_tensors(body: bytes) -> dict[str, Tensor]:
    """Return what ``pack_tensors`` was given."""
    return load(body)


def pack_optimizer(optimizer: torch.optim.Optimizer) -> Snapshot:
    """Return what an optimizer knows of each parameter; its options are its maker's.

    Raises:
        ConfigError: it keeps something else than tensors and numbers.
    """
    tensors, numbers = {}, []
    for index, kept in optimizer.state_dict()["state"].items():
        for key, value in kept.items():
            if isinstance(value, Tensor):
                tensors[f"{index}/{key}"] = value
            elif value is None or isinstance(value, bool | int | float):
                numbers.append([index, key, value])
            else:
                raise ConfigError(
                    f"checkpoint: {type(optimizer).__name__} keeps {key!r} as "
                    f"{type(value).__name__}, which cannot be kept; use another optimizer, or "
                    "leave out checkpoint"
                )
    return Snapshot({"numbers": numbers}, blobs={_TENSORS: pack_tensors(tensors)})


def unpack_optimizer(optimizer: torch.optim.Optimizer, snapshot: Snapshot) -> None:
    """Give an optimizer that was made in the same way what ``pack_optimizer`` returned."""
    state: dict[int, dict[str, Any]] = {}
    for name, tensor in unpack_tensors(snapshot.blobs[_TENSORS]).items():
        index, _, key = name.partition("/")
        state.setdefault(int(index), {})[key] = tensor
    for index, key, value in snapshot.facts["numbers"]:
        state.setdefault(index, {})[key] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
