"""A cut network in a folder: what a device loads, what a server loads, and what both code with.

    device.safetensors   head, encoder and prior (and the last layers, where labels stay)
    server.safetensors   decoder and tail
    tables.bin           the coder's integer tables, where the bottleneck has any
    cut.json             which task, where it is cut, the bottleneck: what builds the modules again

A device needs ``cut.json`` and ``device.safetensors``; tables it gets from the server.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from flowerpress.compression import ConfigError
from flowerpress.compression.bottleneck import Cut
from flowerpress.compression.features.tables import Tables
from flowerpress.simulations.checkpoints.atomic import written_whole
from flowerpress.simulations.fields import Fields, parse

__all__ = [
    "DEVICE",
    "CutRecipe",
    "device_module",
    "load_cut",
    "load_recipe",
    "load_tables",
    "save_cut",
]

FORMAT = "flowerpress.cut/1"
DEVICE, SERVER, TABLES, RECIPE = (
    "device.safetensors",
    "server.safetensors",
    "tables.bin",
    "cut.json",
)


@dataclass(frozen=True)
class CutRecipe:
    """What builds the modules of a cut network again, before weights are loaded into them."""

    task: str
    at: str
    bottleneck: str
    mode: str = "vanilla"


def device_module(cut: Cut) -> nn.ModuleDict:
    """Return all that a device holds: what is federated, and what its file stores."""
    parts = {"device": cut.device}
    if cut.last is not None:
        parts["last"] = cut.last
    return nn.ModuleDict(parts)


def save_cut(cut: Cut, recipe: CutRecipe, folder: Path, *, version: int = 1) -> None:
    """Write the folder; each file appears whole or not at all, ``cut.json`` last.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make the folder {folder}: {error.strerror}") from error
    tables = cut.bottleneck.tables(version)
    files = {
        DEVICE: save(_state(device_module(cut))),
        SERVER: save(_state(cut.server)),
        TABLES: b"" if tables is None else tables.to_bytes(),
        RECIPE: json.dumps({"format": FORMAT, **asdict(recipe)}, indent=1).encode() + b"\n",
    }
    for name, body in files.items():
        with written_whole(folder / name, force=True) as stream:
            stream.write(body)


def load_recipe(folder: Path) -> CutRecipe:
    """Read ``cut.json``.

    Raises:
        ConfigError: it is not there, or says something that nobody writes.
    """
    path = folder / RECIPE
    try:
        fields = Fields(parse(path.read_bytes(), str(path)), str(path))
    except OSError as error:
        raise ConfigError(
            f"{folder}: holds no cut network ({RECIPE}: {error.strerror}); "
            "`flowerpress split train` and `split distill` write one"
        ) from error
    if fields.text("format") != FORMAT:
        raise ConfigError(f"{path}: is of the format {fields.text('format')!r}, not {FORMAT!r}")
    recipe = CutRecipe(*(fields.text(name) for name in ("task", "at", "bottleneck", "mode")))
    fields.done()
    return recipe


def load_cut(cut: Cut, folder: Path, *, server: bool = True) -> None:
    """Load weights into ``cut`` in place; without ``server``, the device's alone.

    Raises:
        ConfigError: a file is missing, broken, or of another network.
    """
    _load(device_module(cut), folder / DEVICE)
    if server:
        _load(cut.server, folder / SERVER)


def load_tables(folder: Path) -> Tables | None:
    """Return the coder's tables, or None where the bottleneck has none.

    Raises:
        ConfigError: the file is missing.
        WireError: it is damaged.
    """
    try:
        body = (folder / TABLES).read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {folder / TABLES}: {error.strerror}") from error
    return Tables.from_bytes(body) if body else None


def _state(module: nn.Module) -> dict[str, Tensor]:
    return {
        name: value.detach().contiguous().clone() for name, value in module.state_dict().items()
    }


def _load(module: nn.Module, path: Path) -> None:
    try:
        state: Mapping[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
    own = module.state_dict()
    wrong = sorted(
        name
        for name in own.keys() | state.keys()
        if name not in own or name not in state or own[name].shape != state[name].shape
    )
    if wrong:
        raise ConfigError(f"{path}: is of another network; these differ: {', '.join(wrong[:5])}")
    if not all(torch.isfinite(value).all() for value in state.values()):
        raise ConfigError(f"{path}: holds NaN or infinity")
    module.load_state_dict(dict(state))
