"""A task that trains in milliseconds, and profiles that are made by hand."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from flowerpress.compression import Manifest, TensorSpec
from flowerpress.compression.rates.points import Points
from flowerpress.simulations.config import SimulationConfig
from flowerpress.simulations.tasks import Data, Samples, Task, Training
from flowerpress.simulations.tuning.profile import Interaction, Profile

MENU = ("topk(density=0.05)", "topk(density=0.3)", "int8")


class Model(nn.Module):
    """Two layers that matter, one that is never used, and a count of integers."""

    steps: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.last = nn.Linear(8, 3)
        self.unused = nn.Linear(5, 4)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, inputs: Tensor) -> Tensor:
        scores: Tensor = self.last(torch.tanh(self.first(inputs)))
        return scores


class Small(Task):
    """Three classes in a space of six dimensions."""

    training: ClassVar[Training] = Training(batch_size=8, lr=0.2)
    partition: ClassVar[str] = "iid"
    clients: ClassVar[int] = 4

    def load(self) -> Data:
        rng = np.random.default_rng(0)
        labels = torch.from_numpy(rng.integers(0, 3, 200)).long()
        noise = torch.from_numpy(rng.standard_normal((200, 6))).float()
        inputs = noise + 2.0 * nn.functional.one_hot(labels, 6)
        samples = Samples(inputs, labels)
        first, rest = np.arange(150), np.arange(150, 200)
        return Data(samples.take(first), samples.take(rest), ("red", "green", "blue"))

    def build(self) -> nn.Module:
        return Model()


class Branches(Task):
    """Class 0 is told by one branch of the model, classes 1 and 2 by the other."""

    def load(self) -> Data:
        inputs = torch.eye(3).repeat(20, 1)
        samples = Samples(inputs, torch.arange(3).repeat(20))
        return Data(samples, samples, ("0", "1", "2"))

    def build(self) -> nn.Module:
        parts = OrderedDict(left=nn.Linear(1, 3, bias=False), right=nn.Linear(2, 3, bias=False))
        model = nn.ModuleDict(parts)

        def forward(inputs: Tensor) -> Tensor:
            scores: Tensor = model["left"](inputs[:, :1]) + model["right"](inputs[:, 1:])
            return scores

        model.forward = forward
        return model


def config(name: str = "Small", **changes: object) -> SimulationConfig:
    """Return a configuration for a task of this file."""
    values = {"task": f"{Path(__file__)}:{name}", **changes}
    return SimulationConfig.model_validate(values)


def made_profile(sizes: Iterable[int] = (400, 40, 4), settings: tuple[str, ...] = MENU) -> Profile:
    """Return a profile of plausible numbers, with a tensor of integers between the others."""
    shapes = [(size // 4, 4) for size in sizes]
    specs = [TensorSpec(f"layer{at}.weight", shape) for at, shape in enumerate(shapes)]
    specs.insert(1, TensorSpec("steps", (), "int64"))
    floats = [spec for spec in specs if spec.is_float]
    count = len(floats)
    energies = np.linspace(2.0, 0.5, count)
    share = np.linspace(0.1, 1.0, len(settings))
    points = Points(
        tuple(spec.name for spec in floats),
        settings,
        np.array([[np.ceil(spec.size * each) for each in share] for spec in floats]),
        energies[:, None] * (1.0 - share)[None, :] ** 2,
        energies,
        np.array([spec.size for spec in floats], np.int64),
    )
    return Profile(
        manifest=Manifest(tuple(specs)),
        points=points,
        menu=",".join(settings),
        fisher=np.linspace(4.0, 0.0, count),
        loss_changes=np.array([[0.3, 0.1]] * (count - 1) + [[-0.1, np.nan]]),
        loss_errors=np.array([[0.9, 0.3]] * (count - 1) + [[0.2, np.nan]]),
        interactions=(Interaction(tuple(spec.name for spec in floats[:2]), 0.61, 0.6),),
        class_weights={"blue": 2.0},
        facts={"rounds": 2, "clients": 8, "updates": 3, "seconds": 1.5, "loss": 0.7},
        skipped=("loss at NMSE 0.05: 2 of 3 tensors",),
        config={"task": "small", "clients": 4, "partition": "iid", "seed": 0, "training": {}},
        versions={"numpy": "2"},
        command="flowerpress tune profile",
    )
