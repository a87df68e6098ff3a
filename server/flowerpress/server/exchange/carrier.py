"""The server's end of the ``grpc`` carrier, for one client in one phase of a round."""

from __future__ import annotations

from collections.abc import Callable

from flwr.app import RecordDict

from flowerpress.protos.exchange import BlobClaim

__all__ = ["ClientExchange"]


class ClientExchange:
    """Offers blobs to a client, and takes what it uploaded.

    Args:
        terms: what the client must know, packed.
        offer: lets the client fetch a blob with a sequence number; returns its claim.
        take: returns the upload of a claim, of at most so many bytes.
    """

    def __init__(
        self,
        terms: bytes,
        offer: Callable[[bytes, int], BlobClaim],
        take: Callable[[BlobClaim, int | None], bytes],
    ) -> None:
        self.terms = terms
        self._offer = offer
        self._take = take

    def attach(self, content: RecordDict, key: str, blob: bytes, sequence: int = 0) -> bytes:
        """Let the client fetch ``blob``; nothing of it goes into the message."""
        return self._offer(blob, sequence).pack()

    def detach(
        self, content: RecordDict, key: str, limit: int | None, claim: bytes = b""
    ) -> bytes | None:
        """Return what the client uploaded, if it is what its receipt claims."""
        return self._take(BlobClaim.unpack(claim), limit) if claim else None
