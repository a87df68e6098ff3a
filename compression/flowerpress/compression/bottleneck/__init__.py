"""Bottlenecks at the cut of a network: torch modules that head and tail share.

The only room of ``flowerpress.compression`` that imports torch, and no other room imports it.
Start with ``bottleneck("entropic(channels=12)", shape)`` and ``Cut(head, bottleneck, tail)``. What
codes a latent is in ``flowerpress.compression.features`` and needs no torch.
"""

from __future__ import annotations

from flowerpress.compression.bottleneck.base import Bottleneck, straight_through
from flowerpress.compression.bottleneck.cut import Cut
from flowerpress.compression.bottleneck.entropic import Entropic
from flowerpress.compression.bottleneck.gdn import Gdn
from flowerpress.compression.bottleneck.measured import ChannelReduction, Plain
from flowerpress.compression.bottleneck.named import BOTTLENECKS, bottleneck, replaces
from flowerpress.compression.bottleneck.open import Open
from flowerpress.compression.bottleneck.pca import Pca
from flowerpress.compression.bottleneck.prior import FactorizedPrior
from flowerpress.compression.bottleneck.vq import VectorQuantized

__all__ = [
    "BOTTLENECKS",
    "Bottleneck",
    "ChannelReduction",
    "Cut",
    "Entropic",
    "FactorizedPrior",
    "Gdn",
    "Open",
    "Pca",
    "Plain",
    "VectorQuantized",
    "bottleneck",
    "replaces",
    "straight_through",
]
