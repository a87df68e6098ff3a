"""Rounds of a run as scalars for TensorBoard, beside ``rounds.jsonl``, which is always written."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, Self

from flowerpress.compression.errors import ConfigError
from flowerpress.simulations.metrics import RoundRecord

__all__ = ["Tracking", "scalars"]

_MISSING = "--tensorboard needs TensorBoard: pip install 'flowerpress[tracking]' -c constraints.txt"
_AGAINST_BYTES = "accuracy by KiB sent"


def scalars(record: RoundRecord) -> dict[str, float]:
    """Return the values of a round by tag; bytes are those of the round, times are seconds."""
    values = {
        "accuracy/all": record.accuracy,
        "accuracy/worst client": record.worst_client.accuracy if record.worst_client else None,
        "loss/test": record.loss,
        "loss/training": record.train_loss,
        "bytes/up": record.bytes_up,
        "bytes/down": record.bytes_down,
        "seconds/simulated": record.simulated_seconds,
        "seconds/measured": record.seconds,
        "clients/asked": record.clients,
        "clients/left out": len(record.left_out),
    }
    return {tag: float(value) for tag, value in values.items() if value is not None}


class Tracking:
    """Writes runs below a folder as they go, a folder for each; a context manager.

    Args:
        folder: for ``tensorboard --logdir``; None writes nothing.

    Raises:
        ConfigError: TensorBoard is not installed, or the folder cannot be written.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._writers: dict[str, Any] = {}
        self._sent: dict[str, int] = {}
        if folder is None:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ConfigError(_MISSING) from error
        self._writer = SummaryWriter
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"{folder}: cannot be written: {error.strerror}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for writer in self._writers.values():
            writer.close()

    def add(self, record: RoundRecord, run: str = "") -> None:
        """Write one round of a run, whose folder is ``run`` below the one of all."""
        if self._folder is None:
            return
        if run not in self._writers:
            self._writers[run] = self._writer(str(self._folder / run))
        writer = self._writers[run]
        for tag, value in scalars(record).items():
            writer.add_scalar(tag, value, record.round)
        self._sent[run] = sent = self._sent.get(run, 0) + record.bytes_total
        if record.accuracy is not None:
            # Instead of rounds along the axis: what each round took is another number with each
            # codec.
            writer.add_scalar(_AGAINST_BYTES, record.accuracy, sent >> 10)
        writer.flush()
