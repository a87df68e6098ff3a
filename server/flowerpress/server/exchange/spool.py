"""An upload while it arrives: in memory, above some size in a temporary file."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from logging import getLogger
from pathlib import Path
from typing import IO

from flowerpress.protos.exchange import BlobClaim, Code
from flowerpress.server.exchange.refusals import Refusal

__all__ = ["Room", "Spool"]

_log = getLogger(__name__)


class Room:
    """Bytes that all spools together may hold.

    Args:
        most: bytes.
        memory: bytes of a spool that stay in memory.
        folder: of the temporary files; None: the system's.
    """

    def __init__(self, most: int, memory: int, folder: Path | None) -> None:
        self.held = 0
        self._memory = memory
        self._folder = None if folder is None else str(folder)
        self._most = most

    def file(self) -> IO[bytes]:
        """Return an empty temporary file, which is gone when it is closed."""
        return tempfile.SpooledTemporaryFile(self._memory, dir=self._folder)

    def take(self, size: int) -> None:
        """Hold ``size`` bytes more.

        Raises:
            Refusal: there is no room for them now.
        """
        if self.held + size > self._most:
            raise Refusal(Code.BUSY, "the server has no room for more bytes now; try again")
        self.held += size

    def give_back(self, size: int) -> None:
        """Hold ``size`` bytes less."""
        self.held -= size


class Spool:
    """One upload. It takes as much room as has arrived, whatever is claimed.

    Attributes:
        claim: what it is to become.
        offset: bytes that have arrived.
        finished: whether all of it has, and is what was claimed.
    """

    def __init__(self, claim: BlobClaim, room: Room) -> None:
        self.claim = claim
        self.finished = False
        self._room = room
        self._begin()

    def _begin(self) -> None:
        self.offset = 0
        self._digest = hashlib.sha256()
        self._file = self._room.file()

    def write(self, offset: int, data: bytes) -> None:
        """Append ``data``, which begins at ``offset`` of the blob.

        Raises:
            Refusal: the upload was given up, it is not the next piece, there is no room; or it
                cannot be stored, or all of it is not what was claimed: in these two cases the spool
                is empty again.
        """
        if self._file.closed:
            # A stream that was ended may have had its last message already.
            raise Refusal(Code.STALE, "this upload was given up")
        if offset != self.offset:
            raise Refusal(Code.OFFSET, f"a chunk at {offset}, where {self.offset} is next")
        if offset + len(data) > self.claim.length:
            raise Refusal(Code.LIMIT, f"more than the {self.claim.length} bytes that were claimed")
        self._room.take(len(data))
        self.offset += len(data)
        self._digest.update(data)
        last = self.offset == self.claim.length
        try:
            self._file.write(data)
            if last:
                self._file.flush()
        except OSError as error:
            self._begin_anew()
            _log.error("exchange: an upload cannot be stored", exc_info=error)
            raise Refusal(Code.BUSY, "the server cannot store more bytes now; try again") from error
        if last and self._digest.digest() != self.claim.digest:
            self._begin_anew()
            raise Refusal(Code.DIGEST, "what arrived has another digest than was claimed")
        self.finished = last

    def _begin_anew(self) -> None:
        self.drop()
        self._begin()

    def read(self) -> bytes:
        """Return what has arrived."""
        self._file.seek(0)
        return self._file.read()

    def drop(self) -> None:
        """Give back all room."""
        with contextlib.suppress(OSError):  # of bytes that nobody wants any more
            self._file.close()
        self._room.give_back(self.offset)
        self.offset = 0
