"""Generations of a state on disk: the newest is whole or does not exist, and the one before stays.

    FOLDER/index.sqlite                     which generations were committed
    FOLDER/00000007-<sha256>.safetensors    one of them
    FOLDER/lock                             held by the process that has the store open

A commit writes and syncs the file of the new generation, then the row that names it: that
transaction is the step. Whatever ends the process or fails before it leaves the old generation,
whatever comes after it the new one. A file says in its name what its bytes must be, so that an
index which was damaged is made again from the files that are there.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import sqlite3
from pathlib import Path
from types import TracebackType

from flowerpress.compression.errors import ConfigError, StorageError
from flowerpress.protos.store.disk import in_words, locked, made, sync_folder, write_file
from flowerpress.protos.store.index import Index, Row, is_damage
from flowerpress.protos.store.snapshot import Snapshot, file_digest, file_parts, read_file

__all__ = ["Store"]

_NAME = re.compile(r"(\d{8,10})-([0-9a-f]{64})\.safetensors")
_UNFINISHED = "unfinished.part"
# What SQLite's user_version holds.
_LAST = 2**31 - 1

logger = logging.getLogger(__name__)


class Store:
    """The generations in one folder, open for one writer.

        with Store(folder) as store:
            snapshot = store.load()
            store.commit(Snapshot({"round": 3}, arrays={"w": w}))

    Args:
        folder: is made where it is missing. Nothing else may be kept in it.
        keep: how many generations stay; two, so that one is left where the newest is damaged.
        sync: whether a commit waits for the disk. Without, it outlasts the process and not the
            power: for tests and simulations.

    Raises:
        StorageError: another process has it open, or the folder cannot be used.
        ConfigError: ``keep`` is below 1.
    """

    def __init__(self, folder: str | Path, keep: int = 2, *, sync: bool = True) -> None:
        if keep < 1:
            raise ConfigError(f"keep is {keep}; at least one generation must stay")
        self.folder = Path(folder)
        self._keep = keep
        self._sync = sync
        self._damaged: set[int] = set()
        with in_words("open", self.folder):
            made(self.folder, sync=sync)
            try:
                self._lock = locked(self.folder / "lock")
            except BlockingIOError as error:
                raise StorageError(
                    self.folder,
                    "another process has it open; end that one, or give each a folder of its own",
                ) from error
            try:
                self._index, self._rows = self._opened()
                self._number = self._rows[-1].number if self._rows else 0
                self._sweep()
            except BaseException:
                os.close(self._lock)
                raise

    def load(self) -> Snapshot | None:
        """Return the newest generation that is what was committed; None where nothing ever was.

        One that is damaged is skipped with a warning.

        Raises:
            StorageError: there are generations, and all of them are damaged.
        """
        for row in reversed(self._rows):
            try:
                snapshot = self._read(row)
            except StorageError as error:
                logger.warning("flowerpress: generation %d is skipped: %s", row.number, error)
                self._damaged.add(row.number)
            else:
                return snapshot
        if not self._rows:
            return None
        raise StorageError(
            self.folder,
            "no generation in it is what was written. Restore the folder from a copy, or move it "
            "away to begin anew without what it held",
        )

    def commit(self, snapshot: Snapshot) -> int:
        """Make ``snapshot`` the newest generation, whole or not at all; return its number.

        Raises:
            StorageError: it could not be written, or holds what cannot be kept. The generation
                before is still there, and the store can be used as before.
        """
        with in_words("write to", self.folder):
            # A number is tried once: whether a commit that failed in the end counts is not known.
            number = self._number = self._number + 1
            if number > _LAST:
                raise StorageError(self.folder, "its numbers are used up; begin a new folder")
            row = self._write(number, snapshot)
            sound = [old for old in self._rows if old.number not in self._damaged]
            rows = [*sound[len(sound) - self._keep + 1 :], row] if self._keep > 1 else [row]
            self._index.replace(rows)
        self._rows = rows
        self._sweep()
        return number

    def close(self) -> None:
        """Let others open the folder."""
        if self._lock >= 0:
            self._index.close()
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _opened(self) -> tuple[Index, list[Row]]:
        """Return the index and its rows; one that was damaged is made again from the files."""
        try:
            index = Index(self.folder, sync=self._sync)
            try:
                rows = index.rows()
            except BaseException:
                index.close()
                raise
            files = self._files()
            if all(row in files for row in rows) and (rows or not files):
                return index, rows
            index.close()
            reason = "it does not name the files that are there"
        except (sqlite3.Error, UnicodeDecodeError) as error:
            if not is_damage(error):
                raise
            reason = str(error)
        # A first commit that was cut off looks like that, too: its file is whole, and may count.
        logger.warning("flowerpress: the index of %s is made again: %s", self.folder, reason)
        Index.delete(self.folder)
        index = Index(self.folder, sync=self._sync)
        try:
            rows = self._files()
            index.replace(rows)
        except sqlite3.Error:
            index.close()
            raise
        return index, rows

    def _files(self) -> list[Row]:
        """Return a row for each file that is named like a generation, oldest first."""
        found = [(path, _NAME.fullmatch(path.name)) for path in sorted(self.folder.iterdir())]
        rows = [
            Row(int(match[1]), path.name, path.stat().st_size, match[2])
            for path, match in found
            if match
        ]
        return sorted({row.number: row for row in rows}.values(), key=lambda row: row.number)

    def _read(self, row: Row) -> Snapshot:
        path = self.folder / row.file
        with in_words("read", path):
            if file_digest(path) != (row.size, row.sha256):
                raise StorageError(path, "its bytes are not the ones that were written")
            return read_file(path, row.number)

    def _write(self, number: int, snapshot: Snapshot) -> Row:
        unfinished = self.folder / _UNFINISHED
        parts = file_parts(self.folder, number, snapshot)
        digest = hashlib.sha256()
        for part in parts:
            digest.update(part)
        name = f"{number:08d}-{digest.hexdigest()}.safetensors"
        write_file(unfinished, parts, sync=self._sync)
        unfinished.replace(self.folder / name)
        if self._sync:
            sync_folder(self.folder)
        return Row(number, name, sum(part.nbytes for part in parts), digest.hexdigest())

    def _sweep(self) -> None:
        """Remove files that no row names; one that resists is tried again the next time."""
        kept = {row.file for row in self._rows}
        try:
            for path in self.folder.iterdir():
                if path.name == _UNFINISHED or (
                    _NAME.fullmatch(path.name) and path.name not in kept
                ):
                    path.unlink(missing_ok=True)
        except OSError as error:
            logger.warning("flowerpress: cannot tidy up %s: %s", self.folder, error)
