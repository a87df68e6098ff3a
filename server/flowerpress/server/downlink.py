"""What is sent to clients: to each the bytes that it lacks, and an instruction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flwr.app import Message, RecordDict
from numpy.typing import NDArray

from flowerpress.compression import ConfigError
from flowerpress.protos import (
    Carrier,
    Carriers,
    Instruction,
    join_updates,
    to_numpy,
)
from flowerpress.protos.store import Snapshot
from flowerpress.server.broadcast import Broadcast, Packed
from flowerpress.server.intake import Intake
from flowerpress.server.meter import Meter
from flowerpress.server.rates import RateControl

__all__ = ["Downlink", "Phase"]


@dataclass(frozen=True)
class _Parcel:
    """The downlink of all clients that hold the same version, and the version it starts from."""

    start: int
    blob: bytes
    by_tensor: Mapping[str, int]

    @classmethod
    def of(cls, start: int, updates: Sequence[Packed]) -> _Parcel:
        sizes: Counter[str] = Counter()
        for update in updates:
            sizes.update(update.by_tensor)
        blobs = [update.blob for update in updates]
        return cls(start, join_updates(blobs) if blobs else b"", sizes)


@dataclass
class Phase:
    """What was sent in the phase (train or evaluate) of a round under way.

    ``key`` is the record name of the model, ``model`` the server's own; ``carriers`` move the blobs
    of each node that is asked; ``messages`` are those not answered yet, by node.
    """

    number: int = 0
    key: str = ""
    model: dict[str, NDArray[Any]] = field(default_factory=dict)
    carriers: Mapping[int, Carrier] = field(default_factory=dict)
    messages: dict[int, Message] = field(default_factory=dict)
    parcels: dict[int, _Parcel] = field(default_factory=dict)
    train: bool = True


class Downlink:
    """Replaces the model in a strategy's messages.

    Args:
        broadcast: the versions of the model.
        rates: the codecs and budgets that clients are told.
        carriers: how blobs travel.
        meter: counts what is sent.
        seed: root of the clients' stochastic codecs.
        intake: the watermarks and verdicts that clients are told.
        decay: by what clients multiply their residuals each round.

    Attributes:
        phase: the phase under way.
        versions: node -> the version that the client is known to hold.
        seed: as it was given.

    Raises:
        ConfigError: a decay out of range.
    """

    def __init__(
        self,
        broadcast: Broadcast,
        rates: RateControl,
        carriers: Carriers,
        meter: Meter,
        seed: int,
        intake: Intake,
        decay: float = 1.0,
    ) -> None:
        if not 0.0 < decay <= 1.0:
            raise ConfigError(f"decay is {decay}; it must be above 0 and up to 1 (no decay)")
        self.phase = Phase()
        self.versions: dict[int, int] = {}
        self._broadcast = broadcast
        self._rates = rates
        self._carriers = carriers
        self._meter = meter
        self.seed = seed
        self._intake = intake
        self._decay = decay

    def state(self) -> Snapshot:
        """Return which client holds what, and the seed that clients are told."""
        return Snapshot({"seed": self.seed, "versions": list(self.versions.items())})

    def restore(self, snapshot: Snapshot) -> None:
        """Go on from what ``state()`` returned; nothing is under way."""
        self.seed = snapshot.facts["seed"]
        self.versions = dict(snapshot.facts["versions"])
        self.phase = Phase()

    def address(
        self,
        server_round: int,
        messages: list[Message],
        *,
        train: bool,
        seconds: float | None = None,
    ) -> list[Message]:
        """Begin a phase: replace the model in each message by what its client lacks.

        Args:
            server_round: from 1.
            messages: the strategy's, with one model for all.
            train: whether clients are to send updates.
            seconds: after which no update is taken any more; None: until the phase ends.

        Raises:
            ConfigError: several models.
        """
        self.phase = Phase(server_round)
        if not messages:
            return []
        records = {id(r): (k, r) for m in messages for k, r in m.content.array_records.items()}
        if len(records) != 1:
            raise ConfigError(
                f"the strategy sends {len(records)} ArrayRecords a round; "
                "Pressed carries one model, the same for all clients"
            )
        ((key, record),) = records.values()
        model = to_numpy(record)
        self._broadcast.publish(server_round, model)
        manifest = self._broadcast.manifest
        carriers = self._carriers.open_round(
            self._broadcast.run,
            server_round,
            [message.metadata.dst_node_id for message in messages],
            largest=self._intake.largest(manifest) if train else 0,
            seconds=seconds,
        )
        self.phase = Phase(server_round, key, model, carriers, train=train)
        self._rates.begin(server_round, manifest, model)
        return [self.send(message) for message in messages]

    def send(self, message: Message) -> Message:
        """Fill one message of the phase under way, and count it."""
        node = message.metadata.dst_node_id
        broadcast, phase = self._broadcast, self.phase
        known = self.versions.get(node, 0)
        # Clients that hold the same version are sent the same bytes object, not a copy each.
        if known not in phase.parcels:
            phase.parcels[known] = _Parcel.of(*broadcast.path(known))
        parcel = phase.parcels[known]
        content = RecordDict({k: v for k, v in message.content.items() if k != phase.key})
        carrier, claim = phase.carriers[node], b""
        if parcel.blob:
            claim = carrier.attach(content, phase.key, parcel.blob, broadcast.version)
        terms = self._rates.terms(node, broadcast.manifest, afresh=not known, train=phase.train)
        Instruction(
            run=broadcast.run,
            round=phase.number,
            client=node,
            version=broadcast.version,
            held=parcel.start,
            digest=broadcast.digest,
            watermark=self._intake.watermarks.get(node, 0),
            arrays=phase.key,
            carrier=self._carriers.name,
            exchange=carrier.terms,
            claim=claim,
            seed=self.seed,
            verdict=self._intake.verdicts.of(node),
            decay=self._decay,
            **vars(terms),
        ).write(content)
        self._meter.of(phase.number).downlink.record(
            node,
            len(parcel.blob) + terms.nbytes,
            broadcast.manifest.nbytes,
            parcel.by_tensor,
        )
        message.content = content
        phase.messages[node] = message
        return message

    def finish(self) -> None:
        """End the phase for the carriers: what has not arrived is not waited for."""
        self._carriers.close_round()

    def send_whole(self, asked: Message) -> Message:
        """Return a message in place of ``asked``, for a client that turned out to hold no model."""
        metadata = asked.metadata
        self.versions[metadata.dst_node_id] = 0
        message = Message(
            asked.content,
            metadata.dst_node_id,
            metadata.message_type,
            group_id=metadata.group_id,
        )
        return self.send(message)
