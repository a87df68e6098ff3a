"""What a run leaves behind beside its rounds, and its JSON: ``summary.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from flowerpress.compression.errors import ConfigError
from flowerpress.simulations.fields import Fields, plain
from flowerpress.simulations.metrics import RoundRecord, ratio

__all__ = ["FORMAT", "Final", "Summary", "TensorInfo"]

FORMAT = 1
"""Version of ``summary.json``; readers refuse every other."""


@dataclass(frozen=True)
class TensorInfo:
    """A tensor of the model: its name, shape and NumPy dtype name."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @classmethod
    def from_json(cls, data: object, where: str) -> TensorInfo:
        read = Fields(data, where)
        shape = read.items("shape")
        if not all(isinstance(side, int) and not isinstance(side, bool) for side in shape):
            raise ConfigError(f"{where}: 'shape' must be a list of integers")
        info = cls(read.text("name"), tuple(shape), read.text("dtype"))
        read.done()
        return info


@dataclass(frozen=True)
class Final:
    """The metrics of the last round that was evaluated."""

    accuracy: float | None = None
    loss: float | None = None
    worst_client_accuracy: float | None = None
    recall: tuple[float | None, ...] | None = None

    @classmethod
    def of(cls, records: Sequence[RoundRecord]) -> Final:
        for record in reversed(records):
            if record.accuracy is not None:
                worst = record.worst_client.accuracy if record.worst_client else None
                return cls(record.accuracy, record.loss, worst, record.recall)
        return cls()

    @classmethod
    def from_json(cls, data: object, where: str) -> Final:
        read = Fields(data, where)
        final = cls(
            read.maybe_number("accuracy"),
            read.maybe_number("loss"),
            read.maybe_number("worst_client_accuracy"),
            read.maybe_numbers("recall"),
        )
        read.done()
        return final


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A whole run: ``summary.json``. ``command`` is what the user typed, "" if not known."""

    config: Mapping[str, Any]
    versions: Mapping[str, str]
    tensors: tuple[TensorInfo, ...]
    classes: tuple[str, ...]
    final: Final
    best_accuracy: float | None
    total_bytes_up: int
    total_bytes_down: int
    ratio_up: float | None
    ratio_down: float | None
    left_out: int
    seconds: float
    finished: bool
    command: str = ""

    @classmethod
    def of(
        cls,
        records: Sequence[RoundRecord],
        *,
        config: Mapping[str, Any],
        versions: Mapping[str, str] | None = None,
        tensors: Sequence[TensorInfo] = (),
        classes: Sequence[str] = (),
        seconds: float | None = None,
        finished: bool = True,
        command: str = "",
    ) -> Summary:
        """Add up ``records``; ``seconds`` defaults to the sum over the rounds."""
        up = sum(record.bytes_up for record in records)
        down = sum(record.bytes_down for record in records)
        return cls(
            config=dict(config),
            versions=dict(versions or {}),
            tensors=tuple(tensors),
            classes=tuple(classes),
            final=Final.of(records),
            best_accuracy=max(
                (r.accuracy for r in records if r.accuracy is not None), default=None
            ),
            total_bytes_up=up,
            total_bytes_down=down,
            ratio_up=ratio(sum(record.raw_bytes_up for record in records), up),
            ratio_down=ratio(sum(record.raw_bytes_down for record in records), down),
            left_out=sum(len(record.left_out) for record in records),
            seconds=sum(record.seconds for record in records) if seconds is None else seconds,
            finished=finished,
            command=command,
        )

    def to_json(self) -> dict[str, Any]:
        """Return a dict that ``json.dumps(..., allow_nan=False)`` accepts."""
        return {"format": FORMAT, **{key: plain(item) for key, item in asdict(self).items()}}

    @classmethod
    def from_json(cls, data: object, where: str) -> Summary:
        """Read what ``to_json`` gave; another format version is a ConfigError."""
        read = Fields(data, where)
        if read.raw("format") != FORMAT:
            raise ConfigError(
                f"{where}: format {read.raw('format')!r} is not {FORMAT}, the one this version of "
                "flowerpress reads; read it with the version that wrote it"
            )
        versions = Fields(read.mapping("versions"), f"{where}: versions")
        summary = cls(
            config=read.mapping("config"),
            versions={name: versions.text(name) for name in read.mapping("versions")},
            tensors=tuple(
                TensorInfo.from_json(item, f"{where}: tensors[{index}]")
                for index, item in enumerate(read.items("tensors"))
            ),
            classes=tuple(str(name) for name in read.items("classes")),
            final=Final.from_json(read.raw("final"), f"{where}: final"),
            best_accuracy=read.maybe_number("best_accuracy"),
            total_bytes_up=read.integer("total_bytes_up"),
            total_bytes_down=read.integer("total_bytes_down"),
            ratio_up=read.maybe_number("ratio_up"),
            ratio_down=read.maybe_number("ratio_down"),
            left_out=read.integer("left_out"),
            seconds=read.number("seconds"),
            finished=read.flag("finished"),
            command=read.text("command"),
        )
        read.done()
        return summary
