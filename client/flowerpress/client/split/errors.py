"""What can go wrong between a device and a split service.

SplitError
├── SplitUnreachableError   no answer before the deadline
├── SplitRefusedError       the service answered, and will not; ``code`` says why
└── RoundLostError          it no longer knows this round's steps: begin the round anew
"""

from __future__ import annotations

from flowerpress.compression import FlowerpressError
from flowerpress.protos.split import Code

__all__ = ["RoundLostError", "SplitError", "SplitRefusedError", "SplitUnreachableError"]


class SplitError(FlowerpressError):
    """Base of the errors of a link."""


class SplitUnreachableError(SplitError):
    """The service did not answer in time."""


class SplitRefusedError(SplitError):
    """The service refused; ``code`` is one of ``flowerpress.protos.split.Code``."""

    def __init__(self, code: Code, text: str) -> None:
        self.code = code
        super().__init__(f"{code.name.lower().replace('_', ' ')}: {text}")


class RoundLostError(SplitRefusedError):
    """The service does not have the steps that this device has taken."""
