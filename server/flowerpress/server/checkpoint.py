"""The state of a run on disk: all of it in one step after each round, and back again.

The parts of the server say themselves what they keep (``Stateful``); here they are put together,
committed, and handed back, after it was made sure that the run is the one that was kept.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from logging import INFO
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from flwr.supercore import log

from flowerpress.compression import ConfigError, StorageError
from flowerpress.protos.store import Snapshot, Store
from flowerpress.server.rounds import Progress
from flowerpress.server.snapshots import Stateful, joined, part

__all__ = ["Checkpoint", "Keeper"]

_FORMAT = 2
_RUN = "run"


class Checkpoint:
    """Where the state of a run is kept, and how.

    Args:
        folder: of this run alone; is made where it is missing.
        keep: how many rounds' states stay; two, so that one is left where the newest is damaged.
        sync: whether each round waits for the disk. Without, the state outlasts the process and
            not the power.
        beside: what else is to be kept and restored in the same step, by name.

    Attributes:
        beside: as given; more may be put in before the strategy is started.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        keep: int = 2,
        sync: bool = True,
        beside: Mapping[str, Stateful] | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.beside = dict(beside or {})
        self._keep = keep
        self._sync = sync

    def open(self) -> Store:
        """Open the folder.

        Raises:
            StorageError: another process has it open, or it cannot be used.
        """
        return Store(self.folder, self._keep, sync=self._sync)


class Keeper:
    """Commits the state of one run after each round, and restores it.

    Args:
        checkpoint: where; None: nothing is kept.
        terms: what makes this run this run, in words; a value of None is taken from what was kept.
        parts: the parts of the server, by name.
    """

    def __init__(
        self,
        checkpoint: Checkpoint | None,
        terms: Mapping[str, Any],
        parts: Mapping[str, Stateful],
    ) -> None:
        self._checkpoint = checkpoint
        beside = {} if checkpoint is None else checkpoint.beside
        # As it will be read back: JSON has no tuples.
        self._terms = json.loads(json.dumps({**terms, "kept beside": sorted(beside)}))
        self._parts = {**parts, **{f"beside {name}": each for name, each in beside.items()}}
        self._store: Store | None = None

    def __enter__(self) -> Self:
        if self._checkpoint is not None:
            self._store = self._checkpoint.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._store is not None:
            self._store.close()
            self._store = None

    def resume(self, progress: Progress) -> None:
        """Restore everything, ``progress`` included; nothing happens where nothing was kept.

        Raises:
            ConfigError: what was kept is another run. Nothing was changed then.
            StorageError: no state on disk is what was written.
        """
        found = self._store.load() if self._store is not None else None
        if found is None or self._store is None:
            return
        self._check(self._store.folder, found)
        for name, each in {_RUN: progress, **self._parts}.items():
            each.restore(part(found, name))
        log(
            INFO,
            "flowerpress: %s: going on after round %d",
            self._store.folder,
            progress.round,
        )

    def commit(self, progress: Progress) -> None:
        """Make the state as it is now the one to go on from, in one step.

        Raises:
            StorageError: it cannot be written; the one before is still there.
        """
        if self._store is None:
            return
        parts = {_RUN: progress, **self._parts}
        snapshot = joined({name: each.state() for name, each in parts.items()})
        facts = {"format": _FORMAT, "terms": self._terms, **snapshot.facts}
        try:
            self._store.commit(Snapshot(facts, snapshot.arrays, snapshot.blobs))
        except StorageError as error:
            raise StorageError(
                error.path,
                f"round {progress.round} is over and cannot be kept, so the run stops here "
                f"({error}). Mend that and start again: it goes on from the round before",
            ) from error

    def _check(self, folder: Path, found: Snapshot) -> None:
        kept = found.facts.get("terms")
        if found.facts.get("format") != _FORMAT or not isinstance(kept, dict):
            raise ConfigError(
                f"{folder}: was written by another version of flowerpress; go on with that one, or "
                "choose another folder to begin anew"
            )
        given = {name: value for name, value in self._terms.items() if value is not None}
        differing = [
            f"{name} ({_shown(kept.get(name))} there, {_shown(given.get(name))} here)"
            for name in {**given, **kept}
            if kept.get(name) != given.get(name) and (name in given or name not in self._terms)
        ]
        if differing:
            raise ConfigError(
                f"{folder}: holds a run with another {', '.join(differing)}. Give it what that run "
                "had to go on, or choose another folder to begin anew"
            )
        self._terms = dict(kept)


def _shown(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
