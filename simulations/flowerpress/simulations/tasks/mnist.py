"""MNIST with the convolutional network of the FedAvg paper."""

from __future__ import annotations

from collections import OrderedDict
from typing import ClassVar

import torch
from torch import Tensor, nn

from flowerpress.compression.errors import FormatError
from flowerpress.simulations.tasks.base import Data, Samples, Task, Training
from flowerpress.simulations.tasks.folders import Source, find_files
from flowerpress.simulations.tasks.idx import read_idx

__all__ = ["Mnist"]

_PIXELS = 28
_PARTS = ("train", "t10k")


def _names(stem: str, axes: int) -> tuple[str, ...]:
    """Spellings in use: the original one, with a dot for the dash, and both unpacked."""
    spellings = (f"{stem}-idx{axes}-ubyte", f"{stem}.idx{axes}-ubyte")
    return tuple(f"{spelling}{end}" for spelling in spellings for end in (".gz", ""))


_SOURCE = Source(
    task="mnist",
    title="the four files of the MNIST database of handwritten digits, as .gz or unpacked",
    home="yann.lecun.com/exdb/mnist, or any mirror of it",
    layouts=(
        tuple(
            name
            for part in _PARTS
            for name in (_names(f"{part}-images", 3), _names(f"{part}-labels", 1))
        ),
    ),
)


class Mnist(Task):
    """60,000 training and 10,000 test images of 10 classes; a CNN of 1,663,370 parameters
    (McMahan et al. 2017, "Communication-Efficient Learning of Deep Networks from Decentralized
    Data", section 3).
    """

    training: ClassVar[Training] = Training(
        epochs=1, batch_size=32, lr=0.03, momentum=0.9, max_samples=600
    )
    partition: ClassVar[str] = "dirichlet(alpha=0.5)"
    clients: ClassVar[int] = 10
    cut_at: ClassVar[str | None] = "relu1"

    def load(self) -> Data:
        """Read the IDX files: images uint8 (N, 28, 28). Raises ConfigError if they are missing,
        WireError if they are damaged or not MNIST's.
        """
        paths = find_files(_SOURCE, self.folder)
        parts = []
        for images_path, labels_path in (paths[:2], paths[2:]):
            images = read_idx(images_path, (None, _PIXELS, _PIXELS))
            labels = read_idx(labels_path, (None,))
            if len(images) != len(labels):
                raise FormatError(
                    labels_path.name,
                    f"holds {len(labels)} labels for {len(images)} images of {images_path.name}",
                )
            parts.append(Samples(torch.from_numpy(images), torch.from_numpy(labels).long()))
        return Data(parts[0], parts[1], tuple(str(digit) for digit in range(10)))

    def build(self) -> nn.Module:
        """Two 5 x 5 convolutions (32, 64), each pooled, and two dense layers (512, 10)."""
        return nn.Sequential(
            OrderedDict(
                conv1=nn.Conv2d(1, 32, 5, padding=2),
                pool1=nn.MaxPool2d(2),
                relu1=nn.ReLU(),
                conv2=nn.Conv2d(32, 64, 5, padding=2),
                pool2=nn.MaxPool2d(2),
                relu2=nn.ReLU(),
                flatten=nn.Flatten(),
                fc1=nn.Linear(3136, 512),
                relu3=nn.ReLU(),
                fc2=nn.Linear(512, 10),
            )
        )

    def prepare(self, inputs: Tensor) -> Tensor:
        """uint8 (B, 28, 28) -> float32 (B, 1, 28, 28) of mean 0 and deviation 1.

        The channels are laid out last in memory: evaluation takes half the time on a CPU.
        """
        scaled = inputs.unsqueeze(-1).float().sub_(33.3).div_(78.6)
        return scaled.permute(0, 3, 1, 2)
