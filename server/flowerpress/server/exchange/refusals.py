"""Why a stream of an exchange ends, in words for the client."""

from __future__ import annotations

from flowerpress.compression import LimitError, WireError
from flowerpress.protos.exchange import Code

__all__ = ["Refusal", "refusal_of"]


class Refusal(Exception):  # noqa: N818 - an answer, not a fault of the service
    """What an ERROR says."""

    def __init__(self, code: Code, text: str) -> None:
        self.code = code
        self.text = text
        super().__init__(text)


def refusal_of(error: Exception) -> Refusal:
    """Return how ``error`` is put to a client, who learns nothing of the service's inside."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, LimitError):
        return Refusal(Code.LIMIT, str(error))
    if isinstance(error, WireError):
        return Refusal(Code.MALFORMED, str(error))
    return Refusal(Code.INTERNAL, "the server failed; its log says why")
