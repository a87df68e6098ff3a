"""The folder of a run: ``rounds.jsonl`` grows by a line a round, ``summary.json`` ends it.

``RunWriter`` writes it, ``read_run`` reads it whole, ``RunReader`` follows it while it grows. A run
killed in the middle leaves a readable folder: the torn last line is left out, with a note.
What it holds is in ``metrics.py`` and ``summary.py`` and can be imported from here.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from flowerpress.compression.errors import ConfigError
from flowerpress.protos.store.disk import in_words, sync_folder
from flowerpress.simulations.codecs import codec_name
from flowerpress.simulations.fields import parse
from flowerpress.simulations.metrics import LeftOut, RoundRecord, WorstClient
from flowerpress.simulations.summary import Final, Summary, TensorInfo

__all__ = [
    "Final",
    "LeftOut",
    "RoundRecord",
    "Run",
    "RunReader",
    "RunWriter",
    "Summary",
    "TensorInfo",
    "WorstClient",
    "codec_label",
    "discard",
    "is_finished",
    "read_run",
    "rewind",
]

ROUNDS = "rounds.jsonl"
SUMMARY = "summary.json"

STALE = (
    SUMMARY,
    "report.html",
    "model.safetensors",
    "accuracy_bytes.png",
    "accuracy_rounds.png",
    "accuracy_time.png",
    "tensor_bytes.png",
    "tensor_rounds.png",
    "class_recall.png",
)
"""What belongs to an earlier run in the same folder, and goes when a new one starts there."""


@dataclass(frozen=True)
class Run:
    """A run as read from its folder.

    ``summary`` is None for a run that was killed or still goes on; ``label`` is what charts and
    tables call it; ``notes`` say what the reader left out.
    """

    records: tuple[RoundRecord, ...]
    summary: Summary | None
    folder: Path
    label: str
    notes: tuple[str, ...] = ()

    @property
    def config(self) -> dict[str, Any]:
        """The configuration, empty without a summary."""
        return dict(self.summary.config) if self.summary else {}

    @property
    def seed(self) -> int | None:
        """From the configuration, else from a folder called ``seed-<n>``, else None."""
        seed = self.config.get("seed", self.folder.name.removeprefix("seed-"))
        return int(seed) if str(seed).isdecimal() else None

    @property
    def evaluated(self) -> tuple[RoundRecord, ...]:
        """The rounds that have an accuracy."""
        return tuple(record for record in self.records if record.accuracy is not None)


class RunWriter:
    """Writes a run's folder; a context manager.

    Raises ConfigError where the folder holds a finished run, unless ``overwrite``. What an
    unfinished or overwritten run left there is removed, so that no file outlives its run; with
    ``after``, the rounds up to that one are there and stay. With ``sync`` a round that was written
    outlasts a loss of power.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        overwrite: bool = False,
        after: int | None = None,
        sync: bool = False,
    ) -> None:
        self.folder = Path(folder)
        if not overwrite and is_finished(self.folder):
            raise ConfigError(
                f"{self.folder}: holds a finished run; name another folder or ask for overwriting"
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for name in STALE:
                (self.folder / name).unlink(missing_ok=True)
            mode = "w" if after is None else "a"
            self._file = (self.folder / ROUNDS).open(mode, encoding="utf-8", newline="\n")
            if sync:
                sync_folder(self.folder)
                sync_folder(self.folder.parent)
        except OSError as error:
            raise ConfigError(f"{self.folder}: cannot write a run there: {error}") from error
        self._last = -1 if after is None else after
        self._sync = sync

    def append(self, record: RoundRecord) -> None:
        """Write one line and hand it to the operating system, or the disk; rounds must increase.

        Raises:
            StorageError: it cannot be written.
        """
        if record.round <= self._last:
            raise ValueError(f"round {record.round} after round {self._last}")
        self._last = record.round
        line = json.dumps(record.to_json(), allow_nan=False)
        with in_words("write to", self.folder / ROUNDS):
            self._file.write(line + "\n")
            self._file.flush()
            if self._sync:
                os.fsync(self._file.fileno())

    def finish(self, summary: Summary) -> Path:
        """Write ``summary.json`` in one step (a reader sees the old one, none, or all of it).

        Raises:
            StorageError: it cannot be written.
        """
        path = self.folder / SUMMARY
        temporary = path.with_name(f".{SUMMARY}.{os.getpid()}")
        text = json.dumps(summary.to_json(), allow_nan=False, indent=2) + "\n"
        with in_words("write", path):
            try:
                temporary.write_text(text, encoding="utf-8")
                os.replace(temporary, path)  # noqa: PTH105 - atomic by contract
            finally:
                temporary.unlink(missing_ok=True)
        self.close()
        return path

    def close(self) -> None:
        """Close ``rounds.jsonl``; closing twice is fine."""
        with suppress(OSError):  # of a line that could not be written, which was said then
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class RunReader:
    """Reads a run's folder, also while it grows: ``poll`` returns the rounds that are new."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.path = self.folder / ROUNDS
        self.records: list[RoundRecord] = []
        self.notes: list[str] = []
        self._offset = 0
        self._lines = 0
        self._rest = b""

    def poll(self) -> list[RoundRecord]:
        """Read the lines that are complete by now.

        Raises ConfigError, naming file and line, for a line that is not a record.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError as error:
            raise ConfigError(f"{self.folder}: no run there ({ROUNDS} is missing)") from error
        except OSError as error:
            raise ConfigError(f"{self.path}: cannot be read: {error}") from error
        whole, newline, self._rest = data.rpartition(b"\n")
        self._offset += len(whole) + len(newline)
        return [self.line(line) for line in whole.split(b"\n")] if newline else []

    def read(self, label: str | None = None) -> Run:
        """Read everything there is now; a last line that was cut off becomes a note."""
        self.poll()
        notes = list(self.notes)
        records = list(self.records)
        if self._rest.strip():
            where = f"{self.path}, line {self._lines + 1}"
            notes.append(f"{where}: cut off in the middle, left out")
        summary = self.summary()
        if summary is None:
            notes.append(f"{self.folder}: the run has not finished ({SUMMARY} is missing)")
        name = label or (codec_label(summary.config) if summary else None) or self._folder_label()
        return Run(tuple(records), summary, self.folder, name, tuple(notes))

    def summary(self) -> Summary | None:
        """Return the summary, None where there is none yet."""
        path = self.folder / SUMMARY
        try:
            text = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {error}") from error
        return Summary.from_json(parse(text, str(path)), str(path))

    def line(self, line: bytes) -> RoundRecord:
        """Return the record in the next line, without its end.

        Raises ConfigError, naming file and line, for one that is not a record.
        """
        self._lines += 1
        where = f"{self.path}, line {self._lines}"
        record = RoundRecord.from_json(parse(line, where), where)
        if self.records and record.round <= self.records[-1].round:
            raise ConfigError(
                f"{where}: round {record.round} after round {self.records[-1].round}; "
                "the lines must be in the order of the rounds"
            )
        self.records.append(record)
        return record

    def _folder_label(self) -> str:
        folder = self.folder.resolve()
        return folder.parent.name if folder.name.startswith("seed-") else folder.name


def read_run(folder: Path | str, label: str | None = None) -> Run:
    """Read a run's folder; ``label`` defaults to its codecs, else the folder's name.

    Raises ConfigError, naming file and line, for what cannot be read.
    """
    return RunReader(folder).read(label)


def is_finished(folder: Path | str) -> bool:
    """Tell whether the folder holds a run that came to its end.

    A summary that cannot be read counts as finished: it is not ours to overwrite unasked.
    """
    try:
        summary = RunReader(folder).summary()
    except ConfigError:
        return True
    return summary is not None and summary.finished


def rewind(folder: Path | str, last: int) -> list[RoundRecord]:
    """Cut ``rounds.jsonl`` off behind round ``last``; return the records that stay.

    Lines behind it are not looked at: the one that a process died in may be torn.
    """
    reader, path = RunReader(folder), Path(folder) / ROUNDS
    records, kept = [], 0
    try:
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        for line in lines[: last + 1]:
            record = reader.line(line.removesuffix(b"\n"))
            if record.round > last or not line.endswith(b"\n"):
                break
            records.append(record)
            kept += len(line)
        if len(lines) > len(records):
            os.truncate(path, kept)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read or written: {error}") from error
    return records


def discard(folder: Path | str) -> None:
    """Remove the files of a run, and nothing else, from its folder if it has any."""
    for name in (ROUNDS, *STALE):
        (Path(folder) / name).unlink(missing_ok=True)


def codec_label(config: object) -> str | None:
    """Return "stc", or "stc up, int8 down" where they differ; None without an "uplink"."""
    if not isinstance(config, dict):
        return None
    up, down = config.get("uplink"), config.get("downlink")
    if not isinstance(up, str):
        return None
    name = codec_name(up)
    return name if down in (None, "same", up) else f"{name} up, {codec_name(str(down))} down"
