"""Who may move what in the round under way.

Everything here runs in the service's own thread, so nothing needs a lock.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from hmac import compare_digest

from flowerpress.compression import FormatError, LimitError
from flowerpress.protos.exchange import BlobClaim, Code, ExchangeMessage, Kind
from flowerpress.protos.split import client_token
from flowerpress.protos.window import SMALLEST_WINDOW
from flowerpress.server.exchange.refusals import Refusal
from flowerpress.server.exchange.spool import Room, Spool
from flowerpress.server.traffic import Traffic

__all__ = ["Rounds", "Seat"]


@dataclass
class Seat:
    """One client in one phase of a round.

    ``offers`` are the blobs that it may fetch, by digest, and ``given`` is how much of each it was
    sent; ``under_way`` is how many bytes at a time its link was found to take. ``spool`` is its
    upload, ``taken`` what the server took from it.
    """

    client: int
    traffic: Traffic
    offers: dict[bytes, bytes] = field(default_factory=dict)
    given: dict[bytes, int] = field(default_factory=dict)
    under_way: float = SMALLEST_WINDOW
    spool: Spool | None = None
    taken: BlobClaim | None = None


@dataclass
class _Phase:
    run: int
    number: int
    largest: int
    closes: float
    seats: dict[int, Seat]


class Rounds:
    """The phases of a run, one at a time.

    Args:
        secret: of the service, from which tokens are made, at most 64 bytes; empty: a random one.
        room: what all uploads together may take.

    Attributes:
        traffic: round -> client -> what it moved.
    """

    def __init__(self, secret: bytes, room: Room) -> None:
        self.traffic: dict[int, dict[int, Traffic]] = {}
        self._secret = secret or secrets.token_bytes(32)
        self._room = room
        self._phase: _Phase | None = None

    def open(
        self, run: int, number: int, clients: Sequence[int], largest: int, seconds: float | None
    ) -> dict[int, bytes]:
        """Begin a phase and return the token of each client; see ``Carriers.open_round``."""
        self.close()
        traffic = self.traffic.setdefault(number, {})
        seats = {client: Seat(client, traffic.setdefault(client, Traffic())) for client in clients}
        closes = float("inf") if seconds is None else time.monotonic() + seconds
        self._phase = _Phase(run, number, largest, closes, seats)
        secret = self._round_secret(run, number)
        return {client: client_token(secret, client) for client in clients}

    def close(self) -> None:
        """End the phase; what was uploaded and not taken is dropped."""
        if self._phase is not None:
            for seat in self._phase.seats.values():
                if seat.spool is not None:
                    seat.spool.drop()
            self._phase = None

    def forget(self, before: int) -> None:
        """Forget what was moved in rounds before ``before``."""
        self.traffic = {number: each for number, each in self.traffic.items() if number >= before}

    def offer(self, client: int, claim: BlobClaim, blob: bytes) -> None:
        """Let a client of the phase fetch ``blob``."""
        assert self._phase is not None, "no round is open"
        self._phase.seats[client].offers[claim.digest] = blob

    def take(self, client: int, claim: BlobClaim, limit: int | None) -> bytes:
        """Return a client's upload, once; a repetition of it is acknowledged and not kept.

        Raises:
            WireError: it did not arrive, or is longer than ``limit``.
        """
        seat = None if self._phase is None else self._phase.seats.get(client)
        spool = None if seat is None else seat.spool
        if seat is None or spool is None or not spool.finished or spool.claim != claim:
            raise FormatError("claim", "the update that the receipt claims did not arrive")
        if limit is not None and claim.length > limit:
            raise LimitError("claim", f"{claim.length} bytes, at most {limit} are accepted")
        blob = spool.read()
        spool.drop()
        seat.spool, seat.taken = None, claim
        return blob

    def admit(self, opened: ExchangeMessage) -> Seat:
        """Return the seat of who opens a stream.

        Raises:
            Refusal: it has none, or comes too late.
        """
        phase = self._phase
        own = client_token(self._round_secret(opened.run, opened.round), opened.client)
        # A wrong token tells nothing of who takes part.
        if not compare_digest(opened.token, own):
            raise Refusal(Code.TOKEN, "not this client's token in that round")
        if phase is None or opened.run != phase.run:
            raise Refusal(Code.ROUND, "no round of that run is under way")
        if opened.round < phase.number or (opened.kind is Kind.UPLOAD and not phase.largest):
            raise Refusal(Code.DEADLINE, f"the training of round {opened.round} is over")
        seat = phase.seats.get(opened.client)
        if seat is None or opened.round != phase.number:
            raise Refusal(Code.ROUND, f"not a client of what is under way in round {phase.number}")
        return seat

    def due(self) -> None:
        """Check that uploads are still taken.

        Raises:
            Refusal: the round's time is up.
        """
        if self._phase is None or time.monotonic() >= self._phase.closes:
            raise Refusal(Code.DEADLINE, "the round's time for uploads is up")

    def spool(self, seat: Seat, claim: BlobClaim) -> Spool | None:
        """Return where an upload goes on, or None if it has all been taken already.

        Raises:
            Refusal: it is too long, too late, or older than what is there.
        """
        self.due()
        assert self._phase is not None
        if claim == seat.taken:
            return None
        if claim.length > self._phase.largest:
            raise Refusal(
                Code.LIMIT,
                f"{claim.length} bytes are claimed, {self._phase.largest} are the most that an "
                "update of this model may have",
            )
        if seat.spool is not None and seat.spool.claim == claim:
            return seat.spool
        known = seat.taken if seat.spool is None else seat.spool.claim
        if seat.taken is not None or (known is not None and claim.sequence < known.sequence):
            raise Refusal(Code.STALE, "a newer update of this client is here")
        if seat.spool is not None:
            seat.spool.drop()
        seat.spool = Spool(claim, self._room)
        return seat.spool

    def _round_secret(self, run: int, number: int) -> bytes:
        name = run.to_bytes(8, "little") + number.to_bytes(4, "little")
        return blake2b(name, digest_size=32, key=self._secret).digest()
