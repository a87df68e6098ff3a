"""Which generations were committed: a table in SQLite, one row for each file.

A row and the database's ``user_version`` (the newest number) change in one transaction, which is
the moment at which a generation begins to exist. One byte of the database that has changed is
noticed: a row names a file with its size and digest, both of which the file itself tells, and the
newest row agrees with ``user_version``.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Index", "Row", "is_damage"]

NAME = "index.sqlite"

# What says that the machine fails, and not that the file is another one than was written.
_TROUBLE = {
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
}


@dataclass(frozen=True)
class Row:
    """A committed generation: its number, and its file with size (bytes) and SHA-256 (hex)."""

    number: int
    file: str
    size: int
    sha256: str


class Index:
    """The open table in ``folder``; ``sync`` says whether a commit outlasts a loss of power.

    Raises:
        sqlite3.Error: the database cannot be opened or made.
        UnicodeDecodeError: its own description is damaged.
    """

    def __init__(self, folder: Path, *, sync: bool) -> None:
        self._connection = sqlite3.connect(folder / NAME, isolation_level=None)
        try:
            self._connection.execute(f"PRAGMA synchronous={'EXTRA' if sync else 'OFF'}")
            self._connection.execute("PRAGMA journal_mode=DELETE")
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS generation (number INTEGER PRIMARY KEY, "
                "file TEXT NOT NULL, size INTEGER NOT NULL, sha256 TEXT NOT NULL)"
            )
        except BaseException:
            self._connection.close()
            raise

    def rows(self) -> list[Row]:
        """Return the committed generations, oldest first.

        Raises:
            sqlite3.DatabaseError: this is not the table that was written.
            UnicodeDecodeError: nor is this; SQLite does not look at text, and Python does.
        """
        execute = self._connection.execute
        ((newest,),) = execute("PRAGMA user_version")
        found = execute("SELECT number, file, size, sha256 FROM generation ORDER BY number")
        rows = [Row(*row) for row in found]
        if newest != (rows[-1].number if rows else 0):
            raise sqlite3.DatabaseError("the newest generation is missing")
        # Nothing is kept by a database that can be read and not written to.
        execute("BEGIN IMMEDIATE")
        execute("ROLLBACK")
        return rows

    def replace(self, rows: Sequence[Row]) -> None:
        """Make ``rows`` (oldest first) the committed generations, in one step.

        Raises:
            sqlite3.Error: it could not be written; what was committed before still is.
        """
        execute = self._connection.execute
        execute("BEGIN IMMEDIATE")
        try:
            execute("DELETE FROM generation")
            self._connection.executemany(
                "INSERT INTO generation VALUES (?, ?, ?, ?)",
                [(row.number, row.file, row.size, row.sha256) for row in rows],
            )
            execute(f"PRAGMA user_version={rows[-1].number if rows else 0:d}")
            execute("COMMIT")
        except sqlite3.Error:
            if self._connection.in_transaction:
                execute("ROLLBACK")
            raise

    def close(self) -> None:
        """Close the database."""
        self._connection.close()

    @staticmethod
    def delete(folder: Path) -> None:
        """Remove the table of ``folder``, and what SQLite keeps beside it."""
        for name in (f"{NAME}-journal", NAME):
            (folder / name).unlink(missing_ok=True)


def is_damage(error: sqlite3.Error | UnicodeDecodeError) -> bool:
    """Whether an error means that the file is not the one that was written."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF not in _TROUBLE
