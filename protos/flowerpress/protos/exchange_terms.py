"""What a client must know to exchange blobs in a round, in the instruction that asks for it.

It crosses in Flower's own, authenticated channel: where the service is and the token that opens it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from google.protobuf.message import DecodeError

from flowerpress.compression import FormatError, LimitError
from flowerpress.protos import exchange_pb2 as pb

__all__ = ["ExchangeTerms"]

_LONGEST = {"address": 512, "token": 64, "certificate": 1 << 16}
_LONGEST_PATIENCE = 7 * 24 * 3600.0


@dataclass(frozen=True)
class ExchangeTerms:
    """Where and how a client moves its blobs.

    ``address`` is ``host:port``; ``token`` admits this client to this round alone. With ``tls`` the
    service's certificate is checked with ``certificate``, the PEM text of its authority; where that
    is empty, with what the client has itself. ``patience`` is how many seconds without progress a
    client waits before it gives up.
    """

    address: str
    token: bytes
    tls: bool
    certificate: bytes
    patience: float

    def pack(self) -> bytes:
        """Return the terms as bytes."""
        packed: bytes = pb.ExchangeTerms(**vars(self)).SerializeToString(deterministic=True)
        return packed

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """Return the terms in hostile ``data``.

        Raises:
            WireError: no terms, or values that no server sends.
        """
        try:
            parsed = pb.ExchangeTerms.FromString(data)
        except DecodeError as error:
            raise FormatError("exchange", "is not a message of this protocol") from error
        for name, longest in _LONGEST.items():
            if len(getattr(parsed, name)) > longest:
                raise LimitError(f"exchange.{name}", f"is longer than {longest}")
        if not parsed.address:
            raise FormatError("exchange.address", "is empty")
        if not 0 < parsed.patience <= _LONGEST_PATIENCE:
            raise FormatError(
                "exchange.patience",
                f"is {parsed.patience}; up to {_LONGEST_PATIENCE:g} s are waited",
            )
        return cls(parsed.address, parsed.token, parsed.tls, parsed.certificate, parsed.patience)
