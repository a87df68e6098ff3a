"""What runs beside the SuperLink: the ``Pressed`` strategy and what it is made of."""

from __future__ import annotations

from flowerpress.server.aggregate import FlowerMean, StreamingMean
from flowerpress.server.broadcast import Broadcast
from flowerpress.server.checkpoint import Checkpoint
from flowerpress.server.intake import Intake, Rejection
from flowerpress.server.meter import HEADER, Meter, RoundBytes
from flowerpress.server.passing import PassingGrid
from flowerpress.server.pressed import Pressed
from flowerpress.server.snapshots import Stateful
from flowerpress.server.streaming import StreamingGrid

__all__ = [
    "HEADER",
    "Broadcast",
    "Checkpoint",
    "FlowerMean",
    "Intake",
    "Meter",
    "PassingGrid",
    "Pressed",
    "Rejection",
    "RoundBytes",
    "Stateful",
    "StreamingGrid",
    "StreamingMean",
]
