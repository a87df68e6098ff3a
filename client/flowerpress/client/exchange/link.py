"""A device's connection to an exchange service: moves blobs, however often it breaks.

A connection that breaks is made anew, and both ends go on at the last byte that arrived.
"""

from __future__ import annotations

import random
import time
from types import TracebackType
from typing import Self

import grpc

from flowerpress.client.exchange.errors import ExchangeRefusedError, ExchangeUnreachableError
from flowerpress.client.exchange.transfers import Arriving, Sending, Talk
from flowerpress.client.stream import SILENCE, BrokenError, Stream
from flowerpress.compression import LimitError, WireError
from flowerpress.protos.exchange import (
    METHOD,
    BlobClaim,
    Code,
    ExchangeMessage,
    Kind,
    channel_options,
)

__all__ = ["ExchangeLink", "open_channel"]

_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 2.0
# The service's mind may change about these; all others are final.
_AGAIN = (Code.OFFSET, Code.DIGEST, Code.BUSY, Code.SILENT, Code.INTERNAL)
_MOST_REFUSED = 3


class ExchangeLink:
    """A connection to an exchange service; a context manager that closes it.

        with ExchangeLink("host:7080", run=1, round=3, client=7, token=token) as link:
            claim = link.upload(blob, sequence)

    Args:
        address: ``host:port``.
        run: identity of the run.
        round: number of the round under way.
        client: number of this client.
        token: of this client in this round.
        tls: whether the service has to prove who it is.
        root_certificates: PEM of the authority of its certificate; None: those that gRPC knows.
        patience: seconds without progress, attempts to reconnect included, after which it gives up.
    """

    def __init__(
        self,
        address: str,
        *,
        run: int,
        round: int,  # noqa: A002 - the term of the field
        client: int,
        token: bytes,
        tls: bool = False,
        root_certificates: bytes | None = None,
        patience: float = 120.0,
    ) -> None:
        self.address = address
        # A kind of its own is given to it each time.
        self._who = ExchangeMessage(Kind.UPLOAD, run=run, round=round, client=client, token=token)
        self._patience = patience
        self._channel = open_channel(address, tls, root_certificates)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def upload(self, blob: bytes, sequence: int) -> BlobClaim:
        """Send ``blob`` until the service has it all, and return what it was claimed to be.

        Raises:
            ExchangeError: no progress in time, or a refusal.
            WireError: what answers is no exchange service.
        """
        claim = BlobClaim.of(blob, sequence)
        self._move(Sending(blob, claim))
        return claim

    def download(self, claim: BlobClaim, largest: int | None = None) -> bytes:
        """Return the blob that ``claim`` names.

        Raises:
            LimitError: it is claimed to be longer than ``largest`` bytes.
            ChecksumError: several times something else arrived.
            ExchangeError, WireError: as ``upload``.
        """
        if largest is not None and claim.length > largest:
            raise LimitError("claim", f"{claim.length} bytes, at most {largest} are accepted")
        arriving = Arriving(claim)
        self._move(arriving)
        return bytes(arriving.blob)

    def _move(self, transfer: Sending | Arriving) -> None:
        """Go on with a transfer until it is done, or nothing has moved for too long."""
        deadline = time.monotonic() + self._patience
        pause, refused, problem = _FIRST_PAUSE, 0, SILENCE
        while True:
            before = transfer.arrived
            stream = Stream(self._channel, METHOD)
            try:
                # Half of the patience is left for another connection.
                transfer.go_on(Talk(stream, self._who, self._patience / 2))
                return
            except BrokenError as error:
                # The last attempt may have had no time; what was heard before says more.
                problem = problem if str(error) == SILENCE else str(error)
            except ExchangeRefusedError as error:
                problem = str(error)
                # A service without room is asked for as long as patience lasts.
                refused += error.code is not Code.BUSY
                if error.code not in _AGAIN or refused >= _MOST_REFUSED:
                    raise
            except WireError as error:
                problem = str(error)
                refused += 1
                if refused >= _MOST_REFUSED:
                    raise
            finally:
                stream.end()
            if transfer.arrived > before:
                deadline, pause = time.monotonic() + self._patience, _FIRST_PAUSE
            left = deadline - time.monotonic()
            if left <= 0:
                raise ExchangeUnreachableError(
                    f"no progress with {self.address} for {self._patience:g} s ({problem}): is the "
                    "server's exchange reachable there, and does it expect TLS as this device does?"
                )
            time.sleep(min(pause * random.uniform(0.5, 1.0), left))
            pause = min(2 * pause, _LONGEST_PAUSE)


def open_channel(address: str, tls: bool, root_certificates: bytes | None) -> grpc.Channel:
    """Return a channel to an exchange service; the arguments are those of ``ExchangeLink``."""
    options = channel_options()
    if not tls:
        return grpc.insecure_channel(address, options)
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(root_certificates), options)
