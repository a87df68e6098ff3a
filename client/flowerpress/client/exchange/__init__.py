"""The device's side of an exchange of blobs: with Flower a carrier, without it a link."""

from __future__ import annotations

from flowerpress.client.exchange.errors import (
    ExchangeError,
    ExchangeRefusedError,
    ExchangeUnreachableError,
)
from flowerpress.client.exchange.link import ExchangeLink
from flowerpress.client.exchange.probe import LinkRate, measure_link

__all__ = [
    "ExchangeError",
    "ExchangeLink",
    "ExchangeRefusedError",
    "ExchangeUnreachableError",
    "LinkRate",
    "measure_link",
]
