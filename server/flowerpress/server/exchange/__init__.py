"""The server's side of an exchange of blobs: a gRPC service beside Flower's ServerApp."""

from __future__ import annotations

from flowerpress.server.exchange.service import ExchangeLimits, ExchangeService
from flowerpress.server.traffic import Counts, Traffic

__all__ = ["Counts", "ExchangeLimits", "ExchangeService", "Traffic"]
