"""What a round leaves behind, and its JSON.

Bytes are those of one round, summed over its clients, measured as the length of what was sent;
``raw_*`` is what plain float32 would have been. Round 0 is the initial model: it has no bytes.
Accuracies and recalls are fractions of 1, None where nothing was measured. A value that is not
finite (a loss that diverged) becomes null in the files. ``record.py`` writes and reads the files,
``summary.py`` has what is left of a whole run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from flowerpress.simulations.client_bytes import ClientBytes
from flowerpress.simulations.fields import Fields, plain
from flowerpress.simulations.treated import Treated

__all__ = ["LeftOut", "RoundRecord", "WorstClient", "ratio"]


def ratio(raw: int, sent: int) -> float | None:
    """Return ``raw / sent``; None where nothing was sent."""
    return raw / sent if sent else None


@dataclass(frozen=True)
class LeftOut:
    """A client whose update was refused in a round: the error's type, its field and message."""

    client: int
    error: str
    field: str
    message: str

    @classmethod
    def from_json(cls, data: object, where: str) -> LeftOut:
        read = Fields(data, where)
        left = cls(
            read.integer("client"), read.text("error"), read.text("field"), read.text("message")
        )
        read.done()
        return left


@dataclass(frozen=True)
class WorstClient:
    """The client with the lowest accuracy on its own test data."""

    client: int
    accuracy: float

    @classmethod
    def from_json(cls, data: object, where: str) -> WorstClient:
        read = Fields(data, where)
        worst = cls(read.integer("client"), read.number("accuracy"))
        read.done()
        return worst


@dataclass(frozen=True, kw_only=True)
class RoundRecord:
    """One round: a line of ``rounds.jsonl``. Every field is a key of the JSON object.

    ``recall`` has one entry per class and ``client_accuracy`` one per client; an entry is None
    where there was no example. ``clients`` is the number that took part.

    ``simulated_seconds`` is how long the round took on simulated links, None without any;
    ``missed`` counts the clients whose updates came after its deadline. ``plan`` maps tensor names
    to codec texts where the server's plan changed in this round, and is None where it did not, or
    where there is none. ``target_bytes`` is the least and the most that any client was asked to
    keep to. ``treated`` is what the defence made of each update. ``client_bytes`` are the bytes by
    client and by what they are. ``owed``, ``dropped`` and ``orphaned`` are sums of absolute
    values: what clients hold back in residuals now, what was left out of the model on purpose so
    far, and what nobody will send any more. Records of earlier versions lack these nine.
    """

    round: int
    seconds: float
    accuracy: float | None = None
    loss: float | None = None
    recall: tuple[float | None, ...] | None = None
    worst_client: WorstClient | None = None
    client_accuracy: tuple[float | None, ...] | None = None
    train_loss: float | None = None
    clients: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    raw_bytes_up: int = 0
    raw_bytes_down: int = 0
    up_by_tensor: Mapping[str, int] = field(default_factory=dict)
    down_by_tensor: Mapping[str, int] = field(default_factory=dict)
    left_out: tuple[LeftOut, ...] = ()
    simulated_seconds: float | None = None
    missed: int = 0
    plan: Mapping[str, str] | None = None
    target_bytes: tuple[int, int] | None = None
    treated: tuple[Treated, ...] = ()
    client_bytes: tuple[ClientBytes, ...] = ()
    owed: float = 0.0
    dropped: float = 0.0
    orphaned: float = 0.0

    @property
    def bytes_total(self) -> int:
        """Both directions."""
        return self.bytes_up + self.bytes_down

    @property
    def ratio(self) -> float | None:
        """How many times smaller than float32, both directions together; None without bytes."""
        return ratio(self.raw_bytes_up + self.raw_bytes_down, self.bytes_total)

    def to_json(self) -> dict[str, Any]:
        """Return a dict that ``json.dumps(..., allow_nan=False)`` accepts."""
        return {key: plain(item) for key, item in asdict(self).items()}

    @classmethod
    def from_json(cls, data: object, where: str) -> RoundRecord:
        """Read what ``to_json`` gave; ``where`` begins the message of the ConfigError."""
        read = Fields(data, where)
        worst = read.raw("worst_client")
        record = cls(
            round=read.integer("round"),
            seconds=read.number("seconds"),
            accuracy=read.maybe_number("accuracy"),
            loss=read.maybe_number("loss"),
            recall=read.maybe_numbers("recall"),
            worst_client=None
            if worst is None
            else WorstClient.from_json(worst, f"{where}: worst_client"),
            client_accuracy=read.maybe_numbers("client_accuracy"),
            train_loss=read.maybe_number("train_loss"),
            clients=read.integer("clients"),
            bytes_up=read.integer("bytes_up"),
            bytes_down=read.integer("bytes_down"),
            raw_bytes_up=read.integer("raw_bytes_up"),
            raw_bytes_down=read.integer("raw_bytes_down"),
            up_by_tensor=read.counts("up_by_tensor"),
            down_by_tensor=read.counts("down_by_tensor"),
            left_out=tuple(
                LeftOut.from_json(item, f"{where}: left_out[{index}]")
                for index, item in enumerate(read.items("left_out"))
            ),
            simulated_seconds=read.maybe_number("simulated_seconds")
            if "simulated_seconds" in read
            else None,
            missed=read.integer("missed") if "missed" in read else 0,
            plan=read.texts("plan") if "plan" in read and read.raw("plan") is not None else None,
            target_bytes=read.span("target_bytes") if "target_bytes" in read else None,
            treated=tuple(
                Treated.from_json(item, f"{where}: treated[{index}]")
                for index, item in enumerate(read.items("treated") if "treated" in read else ())
            ),
            client_bytes=tuple(
                ClientBytes.from_json(item, f"{where}: client_bytes[{index}]")
                for index, item in enumerate(
                    read.items("client_bytes") if "client_bytes" in read else ()
                )
            ),
            **{name: read.number(name) for name in ("owed", "dropped", "orphaned") if name in read},
        )
        read.done()
        return record
