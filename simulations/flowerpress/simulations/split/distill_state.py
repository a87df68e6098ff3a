"""The state of a distillation between epochs, on disk.

One safetensors file, ``distill.safetensors``: weights of all parts, Adam's moments, and as JSON in
its metadata what they belong to. It appears whole or not at all, and holds nothing that runs.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from flowerpress.compression import ConfigError
from flowerpress.compression.bottleneck import Cut
from flowerpress.simulations.checkpoints.atomic import written_whole
from flowerpress.simulations.fields import Fields, parse
from flowerpress.simulations.split.distill_settings import DistillSettings

__all__ = ["Place", "keep", "parts_of_cut", "restore", "resume"]

FILE = "distill.safetensors"
_FORMAT = "flowerpress.distill/1"
_WEIGHTS, _MOMENTS = "weights/", "moments/"


@dataclass(frozen=True)
class Place:
    """How far a distillation has come: ``epoch`` epochs of ``stage`` are done."""

    stage: int
    epoch: int


def keep(
    folder: Path | None,
    cut: Cut,
    optimizer: torch.optim.Optimizer | None,
    settings: DistillSettings,
    seed: int,
    place: Place,
    of: str = "",
) -> None:
    """Write the state; without a folder, do nothing. ``of`` tells kinds of training apart.

    Raises:
        ConfigError: it cannot be written.
    """
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make the folder {folder}: {error.strerror}") from error
    tensors = {_WEIGHTS + name: value for name, value in parts_of_cut(cut).state_dict().items()}
    state = {} if optimizer is None else optimizer.state_dict()["state"]
    for index, moments in state.items():
        for name, value in moments.items():
            tensors[f"{_MOMENTS}{index}/{name}"] = torch.as_tensor(value)
    # Modules of a cut may share tensors (a book of codes): the format wants each name its own.
    tensors = {name: value.detach().clone().contiguous() for name, value in tensors.items()}
    told = {"format": _FORMAT, "of": of, "settings": asdict(settings), "seed": seed}
    with written_whole(folder / FILE, force=True) as stream:
        stream.write(save(tensors, {"state": json.dumps({**told, **asdict(place)})}))


def resume(
    folder: Path | None, cut: Cut, settings: DistillSettings, seed: int, of: str = ""
) -> tuple[Place, dict[str, Tensor]] | None:
    """Load the weights that ``folder`` holds into ``cut``; return how far they are, and moments.

    None where there is nothing to go on from.

    Raises:
        ConfigError: the file is damaged, or of another training or network.
    """
    path = None if folder is None else folder / FILE
    if path is None or not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get("state", "")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"cannot read {path}: {error}; remove it to begin anew") from error
    fields = Fields(parse(text, str(path)), str(path))
    own = {"format": _FORMAT, "of": of, "settings": asdict(settings), "seed": seed}
    if any(fields.raw(name) != value for name, value in own.items()):
        raise ConfigError(f"{path}: is of another distillation; remove it, or name another folder")
    weights = {
        name.removeprefix(_WEIGHTS): value
        for name, value in tensors.items()
        if name.startswith(_WEIGHTS)
    }
    try:
        parts_of_cut(cut).load_state_dict(weights)
    except RuntimeError as error:
        raise ConfigError(f"{path}: is of another network: {error}") from error
    moments = {
        name.removeprefix(_MOMENTS): value
        for name, value in tensors.items()
        if name.startswith(_MOMENTS)
    }
    return Place(fields.integer("stage"), fields.integer("epoch")), moments


def restore(optimizer: torch.optim.Optimizer, moments: dict[str, Tensor]) -> None:
    """Put back the moments that ``resume`` returned."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in moments.items():
        index, _, what = name.partition("/")
        state.setdefault(int(index), {})[what] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def parts_of_cut(cut: Cut) -> nn.ModuleDict:
    """Return head, bottleneck, tail and what is last, by name."""
    names = ("head", "bottleneck", "tail", "last")
    return nn.ModuleDict({n: m for n in names if (m := getattr(cut, n)) is not None})
