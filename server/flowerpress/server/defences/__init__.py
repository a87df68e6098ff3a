"""Defences against clients that send well-formed updates with bad intentions.

    Pressed(FedAvg(), uplink="int8", defence="clip+trimmed(share=0.2)")

Aggregators nest: a cap on weights around clipping around a mean, trimmed mean or median. All see
decoded changes, so they work with every codec.
"""

from __future__ import annotations

from flowerpress.server.defences.base import Treatment
from flowerpress.server.defences.clipping import Clip
from flowerpress.server.defences.examples import Examples
from flowerpress.server.defences.guard import Guard, Guarded
from flowerpress.server.defences.named import DEFENCES, Defence, read_defence
from flowerpress.server.defences.robust import Median, Trimmed

__all__ = [
    "DEFENCES",
    "Clip",
    "Defence",
    "Examples",
    "Guard",
    "Guarded",
    "Median",
    "Treatment",
    "Trimmed",
    "read_defence",
]
