"""What a reply must pass before it counts: receipt, blob, envelope, and that it is the one due."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flwr.app import Message
from numpy.typing import NDArray

from flowerpress.compression import (
    Decoded,
    FormatError,
    Limits,
    Manifest,
    SequenceError,
    WireError,
    decode_frames,
)
from flowerpress.protos import APPLIED, Carrier, Kind, Update, Verdict, largest_blob, unpack
from flowerpress.protos.store import Snapshot
from flowerpress.server.verdicts import Verdicts

__all__ = ["ClientRefusedError", "Intake", "Received", "Rejection", "weight_of"]


# Beyond any number of examples, and small enough that no sum of products overflows.
LARGEST_WEIGHT = 1e15


class ClientRefusedError(WireError):
    """The client answered with an error of its own; ``name`` is that error's class name."""

    def __init__(self, name: str, field: str, message: str) -> None:
        self.name = name
        super().__init__(field, message)
        self.text = message


@dataclass(frozen=True)
class Rejection:
    """A client that was left out of a round, and why.

    ``error`` is the name of the error, ``field`` the part of the message at fault (may be empty).
    """

    round: int
    node: int
    error: str
    field: str
    message: str


@dataclass(frozen=True)
class Received:
    """A checked and decoded update: its sequence number, and its frames by tensor index."""

    kind: Kind
    decoded: tuple[tuple[int, Decoded], ...]
    sequence: int


class Intake:
    """Checks updates of one run, each of which is in the model once or not at all.

    An update that is fit to count is *staged*, and its client's watermark moves with ``commit``,
    when the model that it is in has really become the server's. What was staged in a round that
    came to nothing is forgotten; clients are told the old watermark and send that mass again.

    Attributes:
        watermarks: client -> sequence number of its last update that is settled: in the model, or
            rejected for good.
        verdicts: what became of each client's last one.
    """

    def __init__(self, run: int, limits: Limits) -> None:
        self.watermarks: dict[int, int] = {}
        self.verdicts = Verdicts()
        self._staged: dict[int, tuple[int, Verdict, float]] = {}
        self._run = run
        self._limits = limits

    def begin(self) -> None:
        """Forget what was staged: a new round begins."""
        self._staged = {}

    def stage(
        self, client: int, sequence: int, verdict: Verdict = APPLIED, mass: float = 0.0
    ) -> None:
        """Note what is to become of an update once this round's model is taken.

        Args:
            client: the node.
            sequence: the update's number.
            verdict: applied, clipped or rejected. Either way its client has it behind it.
            mass: the sum of absolute values of the update, where a part of it does not count.
        """
        self._staged[client] = (sequence, verdict, mass)

    def unstage(self, client: int) -> None:
        """Note that a client's update is not in the model after all."""
        self._staged.pop(client, None)

    def commit(self) -> None:
        """Move the watermarks to what was staged: the model that holds it was taken."""
        for client, (sequence, verdict, mass) in self._staged.items():
            self.watermarks[client] = sequence
            self.verdicts.give(client, sequence, verdict, mass)
        self._staged = {}

    def discard(self) -> None:
        """Forget what was staged: the round came to nothing, and clients will send it again."""
        for client in self._staged:
            self.verdicts.not_counted(client, "the round came to nothing")
        self._staged = {}

    def state(self) -> Snapshot:
        """Return the run, the watermarks and the verdicts."""
        marks = list(self.watermarks.items())
        verdicts = self.verdicts.facts()
        return Snapshot({"run": self._run, "watermarks": marks, "verdicts": verdicts})

    def restore(self, snapshot: Snapshot) -> None:
        """Go on from what ``state()`` returned; nothing is staged."""
        self._run = snapshot.facts["run"]
        self.watermarks = dict(snapshot.facts["watermarks"])
        self.verdicts.restore(snapshot.facts["verdicts"])
        self._staged = {}

    def largest(self, manifest: Manifest) -> int:
        """Return the most bytes that a client's update of this model may have."""
        return largest_blob(manifest, self._limits)

    def blob(
        self, carrier: Carrier, reply: Message, key: str, claim: bytes, manifest: Manifest
    ) -> bytes:
        """Return the blob of a reply, which ``carrier`` moved as the receipt's ``claim``.

        Raises:
            WireError: there is no blob, or it is too long.
        """
        blob = carrier.detach(reply.content, key, self.largest(manifest), claim)
        if blob is None:
            raise FormatError(key, "the reply brings no update")
        return blob

    def open(
        self, blob: bytes, client: int, server_round: int, base: bytes, manifest: Manifest
    ) -> Update:
        """Return the update in ``blob`` if it is the one that is due from ``client``.

        Raises:
            WireError: damaged, for another model, a replay, or of another round.
        """
        update = unpack(blob, manifest, self._limits)
        for field, found, due in (
            ("run", update.run, self._run),
            ("client", update.client, client),
            ("round", update.round, server_round),
            ("base", update.base, base),
        ):
            if found != due:
                raise SequenceError(field, "the update belongs to another one")
        if client in self._staged or update.sequence <= self.watermarks.get(client, 0):
            raise SequenceError("sequence", f"{update.sequence} was applied before")
        if len(update.frames) != len(manifest):
            raise FormatError("length", f"{len(update.frames)} frames for {len(manifest)} tensors")
        return update

    def decode(
        self,
        update: Update,
        manifest: Manifest,
        references: Mapping[str, NDArray[Any]],
    ) -> Received:
        """Decode all frames.

        ``references`` is the change that led to the version that the client trained from.

        Raises:
            WireError: a frame is broken; nothing was counted.
        """
        decoded = tuple(decode_frames(manifest, update.frames, references))
        return Received(update.kind, decoded, update.sequence)


def weight_of(reply: Message, key: str | None) -> float:
    """Return the weight of a reply: the metric ``key``, finite and positive; 1 without a key.

    Raises:
        WireError: no single MetricRecord, no such metric, or a value that would take over or
            poison the average.
    """
    records = list(reply.content.metric_records.values())
    if len(records) != 1:
        raise FormatError("metrics", f"{len(records)} MetricRecords where one was expected")
    for name, value in records[0].items():
        values = value if isinstance(value, list) else [value]
        # Not isfinite, which fails on integers that no float holds.
        if not all(abs(v) <= sys.float_info.max for v in values):
            raise FormatError(f"metrics[{name!r}]", "NaN, infinity or beyond what a float holds")
    if key is None:
        return 1.0
    weight = records[0].get(key)
    if not isinstance(weight, int | float) or not 0 < weight <= LARGEST_WEIGHT:
        raise FormatError(
            f"metrics[{key!r}]", f"{weight!r} is no number above 0 and up to {LARGEST_WEIGHT:g}"
        )
    return float(weight)
