"""The device's side of a split network: a link to a split service, with or without Flower.

What trains imports torch, what joins a round of Flower imports Flower; a link alone does neither.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowerpress.client.split.errors import (
    RoundLostError,
    SplitError,
    SplitRefusedError,
    SplitUnreachableError,
)
from flowerpress.client.split.link import SplitLink

if TYPE_CHECKING:
    from flowerpress.client.split.flower import joining
    from flowerpress.client.split.training import SplitResult, train_split

__all__ = [
    "RoundLostError",
    "SplitError",
    "SplitLink",
    "SplitRefusedError",
    "SplitResult",
    "SplitUnreachableError",
    "joining",
    "train_split",
]


def __getattr__(name: str) -> Any:
    if name in ("SplitResult", "train_split"):
        from flowerpress.client.split import training

        return getattr(training, name)
    if name == "joining":
        from flowerpress.client.split.flower import joining

        return joining
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
