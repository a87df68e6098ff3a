"""The device's side of a split network: a link to a split service, with or without Flower."""

from __future__ import annotations

from flowerpress.client.split.errors import (
    RoundLostError,
    SplitError,
    SplitRefusedError,
    SplitUnreachableError,
)
from flowerpress.client.split.link import SplitLink
from flowerpress.client.split.training import SplitResult, train_split

__all__ = [
    "RoundLostError",
    "SplitError",
    "SplitLink",
    "SplitRefusedError",
    "SplitResult",
    "SplitUnreachableError",
    "train_split",
]
