"""What can go wrong between a device and an exchange service.

ExchangeError
├── ExchangeUnreachableError   no progress for too long
└── ExchangeRefusedError       the service answered, and will not; ``code`` says why
"""

from __future__ import annotations

from flowerpress.compression import FlowerpressError
from flowerpress.protos.exchange import Code

__all__ = ["ExchangeError", "ExchangeRefusedError", "ExchangeUnreachableError"]


class ExchangeError(FlowerpressError):
    """Base of the errors of an exchange."""


class ExchangeUnreachableError(ExchangeError):
    """The service did not answer in time."""


class ExchangeRefusedError(ExchangeError):
    """The service refused; ``code`` is one of ``flowerpress.protos.exchange.Code``."""

    def __init__(self, code: Code, text: str) -> None:
        self.code = code
        super().__init__(f"{code.name.lower()}: {text}")
