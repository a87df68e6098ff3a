"""The device's side of an exchange of blobs: with Flower a carrier, without it a link."""

from __future__ import annotations

from flowerpress.client.exchange.errors import (
    ExchangeError,
    ExchangeRefusedError,
    ExchangeUnreachableError,
)
from flowerpress.client.exchange.link import ExchangeLink

__all__ = ["ExchangeError", "ExchangeLink", "ExchangeRefusedError", "ExchangeUnreachableError"]
