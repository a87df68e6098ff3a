"""The server's side of a split network: a gRPC service beside Flower's ServerApp, or alone.

``SplitService(Copies(module, make_optimizer), run=...)`` and ``serve()``.
"""

from __future__ import annotations

from flowerpress.protos.split import SplitLimits
from flowerpress.server.split.copies import Copies
from flowerpress.server.split.reports import ClientReport, Counts, RoundReport, Traffic
from flowerpress.server.split.service import SplitService
from flowerpress.server.split.shared import Shared
from flowerpress.server.split.tails import Tails, TurnError

__all__ = [
    "ClientReport",
    "Copies",
    "Counts",
    "RoundReport",
    "Shared",
    "SplitLimits",
    "SplitService",
    "Tails",
    "Traffic",
    "TurnError",
]
