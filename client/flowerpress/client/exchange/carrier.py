"""The device's end of the ``grpc`` carrier: blobs cross on a connection of their own."""

from __future__ import annotations

from flwr.app import RecordDict

from flowerpress.client.exchange.link import ExchangeLink
from flowerpress.protos import Instruction
from flowerpress.protos.exchange import BlobClaim
from flowerpress.protos.exchange_terms import ExchangeTerms

__all__ = ["ExchangeCarrier"]


class ExchangeCarrier:
    """Moves the blobs of one instruction.

    Args:
        instruction: names the client, the round and the service.
        root_certificates: PEM of the authority of the service's certificate, where the server sends
            none; None: those that gRPC knows.

    Raises:
        WireError: the instruction does not say where the service is.
    """

    def __init__(self, instruction: Instruction, root_certificates: bytes | None) -> None:
        self.terms = instruction.exchange
        self._terms = ExchangeTerms.unpack(instruction.exchange)
        self._instruction = instruction
        self._root_certificates = self._terms.certificate or root_certificates

    def attach(self, content: RecordDict, key: str, blob: bytes, sequence: int = 0) -> bytes:
        """Upload ``blob`` and take the record ``key`` out of the message; return the claim.

        Raises:
            ExchangeError: it could not be brought there.
        """
        content.pop(key, None)
        with self._link() as link:
            return link.upload(blob, sequence).pack()

    def detach(
        self, content: RecordDict, key: str, limit: int | None, claim: bytes = b""
    ) -> bytes | None:
        """Download the blob of ``claim``; None where there is no claim.

        Raises:
            WireError: it is not what the claim says, or longer than ``limit``.
            ExchangeError: it could not be fetched.
        """
        if not claim:
            return None
        with self._link() as link:
            return link.download(BlobClaim.unpack(claim), limit)

    def _link(self) -> ExchangeLink:
        return ExchangeLink(
            self._terms.address,
            run=self._instruction.run,
            round=self._instruction.round,
            client=self._instruction.client,
            token=self._terms.token,
            tls=self._terms.tls,
            root_certificates=self._root_certificates,
            patience=self._terms.patience,
        )
