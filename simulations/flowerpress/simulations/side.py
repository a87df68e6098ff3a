"""What the server of a run works with, whatever is trained: a whole network or a cut one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flwr.app import ArrayRecord
from torch import nn

from flowerpress.server import Pressed

__all__ = ["Side"]


@dataclass(frozen=True)
class Side:
    """The strategy of a run and its models.

    ``arrays`` is the first model, as clients are sent it; ``model`` makes of such arrays the whole
    network, to be judged; ``save`` writes the network to a run's folder.
    """

    pressed: Pressed
    arrays: ArrayRecord
    model: Callable[[ArrayRecord], nn.Module]
    save: Callable[[Path, ArrayRecord], None]
