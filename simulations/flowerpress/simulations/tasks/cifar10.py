"""CIFAR-10 with a small residual network."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from flowerpress.compression.errors import FormatError
from flowerpress.simulations.tasks.base import Data, Samples, Task, Training
from flowerpress.simulations.tasks.folders import Source, find_files
from flowerpress.simulations.tasks.npz import read_npz
from flowerpress.simulations.tasks.reading import (
    MAX_BYTES,
    read_exactly,
    refuse_above,
    typed_errors,
)
from flowerpress.simulations.tasks.resnet import ResNet

__all__ = ["Cifar10", "Cifar10Wide", "read_batches"]

_PIXELS = 32
_COLOURS = 3
_RECORD = 1 + _COLOURS * _PIXELS * _PIXELS
_CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
_ARRAYS: dict[str, tuple[int | None, ...]] = {
    "images": (None, _PIXELS, _PIXELS, _COLOURS),
    "labels": (None,),
}
_SOURCE = Source(
    task="cifar10",
    title='"CIFAR-10 binary version (suitable for C programs)"',
    home="from its authors' page, www.cs.toronto.edu/~kriz/cifar.html",
    layouts=(
        (*((f"data_batch_{part}.bin",) for part in range(1, 6)), ("test_batch.bin",)),
        (("train.npz",), ("test.npz",)),
    ),
    nested="cifar-10-batches-bin",
)


class Cifar10(Task):
    """Colour photographs of 10 classes, 32 x 32; a residual network of 281,882 parameters.

    Two forms are read: the binary version of the authors, or ``train.npz`` and ``test.npz``, each
    with ``images``, uint8 (N, 32, 32, 3), and ``labels``, integers (N,) in alphabetical order of
    the classes' names, which is the authors' order too.
    """

    training: ClassVar[Training] = Training(
        epochs=1, batch_size=32, lr=0.02, momentum=0.9, max_samples=500
    )
    partition: ClassVar[str] = "dirichlet(alpha=0.5)"
    clients: ClassVar[int] = 10
    cut_at: ClassVar[str | None] = "stage1"

    def load(self) -> Data:
        """Read the images, uint8 (N, 32, 32, 3). Raises ConfigError if the files are missing,
        WireError if they are damaged or hold something else.
        """
        paths = find_files(_SOURCE, self.folder)
        train, test = paths[:-1], paths[-1:]
        read = _read_npz if paths[0].suffix == ".npz" else read_batches
        return Data(read(train), read(test), _CLASSES)

    def build(self) -> nn.Module:
        """A ResNet-20 with GroupNorm whose first convolution halves the image."""
        return ResNet(widths=(16, 32, 64), blocks=3, classes=len(_CLASSES))

    def prepare(self, inputs: Tensor) -> Tensor:
        """uint8 (B, 32, 32, 3) -> float32 (B, 3, 32, 32), of mean 0 and deviation 1 or so."""
        return inputs.permute(0, 3, 1, 2).float().sub_(120.0).div_(62.0)


class Cifar10Wide(Cifar10):
    """The data of ``cifar10``; a network twice as wide, of 1,103,402 parameters."""

    name: ClassVar[str] = "cifar10-wide"

    def build(self) -> nn.Module:
        """The same ResNet with widths 32, 64 and 128."""
        return ResNet(widths=(32, 64, 128), blocks=3, classes=len(_CLASSES))


def read_batches(paths: list[Path]) -> Samples:
    """Return the examples of files in the binary version, in their order.

    A record is 3,073 bytes: the label, then 32 x 32 values of red, of green and of blue. Raises
    LimitError or FormatError, whose ``field`` is the file's name.
    """
    images, labels = [], []
    for path in paths:
        size = path.stat().st_size
        refuse_above(size, MAX_BYTES, path.name)
        if size % _RECORD:
            raise FormatError(
                path.name, f"has {size} bytes, which is no multiple of {_RECORD}, a record's length"
            )
        with typed_errors(path), path.open("rb") as file:
            records = read_exactly(file, size, path.name).reshape(-1, _RECORD)
        planes = records[:, 1:].reshape(-1, _COLOURS, _PIXELS, _PIXELS)
        images.append(np.ascontiguousarray(planes.transpose(0, 2, 3, 1)))
        labels.append(records[:, 0])
    return _samples(np.concatenate(images), np.concatenate(labels), paths[0].name)


def _read_npz(paths: list[Path]) -> Samples:
    (path,) = paths
    arrays = read_npz(path, _ARRAYS)
    images = arrays["images"]
    if images.dtype != np.uint8:
        raise FormatError(f"{path.name}[images]", f"is {images.dtype}; uint8 is expected")
    return _samples(images, arrays["labels"], path.name)


def _samples(images: NDArray[np.uint8], labels: NDArray[Any], name: str) -> Samples:
    if len(images) != len(labels):
        raise FormatError(name, f"holds {len(labels)} labels for {len(images)} images")
    return Samples(torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64)))
