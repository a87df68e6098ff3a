"""Handwritten digits, 8 x 8: scikit-learn's bundled data set; the default, needs no download."""

from __future__ import annotations

from collections import OrderedDict
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from flowerpress.compression.errors import ConfigError
from flowerpress.simulations.tasks.base import Data, Samples, Task, Training

__all__ = ["Digits"]

_TEST_EVERY = 5


class Digits(Task):
    """1,433 training and 364 test images of 10 classes, and a CNN of 38,282 parameters.

    Of each class every fifth image is a test image: stratified, and the same for ever, whatever
    the versions of the libraries.
    """

    training: ClassVar[Training] = Training(epochs=2, batch_size=16, lr=0.02, momentum=0.9)
    partition: ClassVar[str] = "dirichlet(alpha=0.5)"
    clients: ClassVar[int] = 10
    cut_at: ClassVar[str | None] = "pool"

    def load(self) -> Data:
        """Read the images, uint8 (N, 8, 8) of 0 to 16. Raises ConfigError without scikit-learn."""
        try:
            from sklearn.datasets import load_digits
        except ImportError as error:
            raise ConfigError(
                "task digits: its images come with scikit-learn, which is not installed; "
                "run: pip install 'flowerpress[simulation]'"
            ) from error
        bunch = load_digits()
        labels = bunch.target.astype(np.int64)
        is_test = np.zeros(len(labels), bool)
        for label in range(10):
            is_test[np.flatnonzero(labels == label)[::_TEST_EVERY]] = True
        images = torch.from_numpy(bunch.images.astype(np.uint8))
        everything = Samples(images, torch.from_numpy(labels))
        return Data(
            train=everything.take(np.flatnonzero(~is_test)),
            test=everything.take(np.flatnonzero(is_test)),
            classes=tuple(str(digit) for digit in range(10)),
        )

    def build(self) -> nn.Module:
        """Two 3 x 3 convolutions (16, 32), one pooling, two dense layers (64, 10)."""
        return nn.Sequential(
            OrderedDict(
                conv1=nn.Conv2d(1, 16, 3, padding=1),
                relu1=nn.ReLU(),
                pool=nn.MaxPool2d(2),
                conv2=nn.Conv2d(16, 32, 3, padding=1),
                relu2=nn.ReLU(),
                flatten=nn.Flatten(),
                fc1=nn.Linear(512, 64),
                relu3=nn.ReLU(),
                fc2=nn.Linear(64, 10),
            )
        )

    def prepare(self, inputs: Tensor) -> Tensor:
        """uint8 (B, 8, 8) -> float32 (B, 1, 8, 8), about -1 to 2."""
        return inputs.unsqueeze(1).float().sub_(5.0).div_(6.0)
