"""A client's state on disk: what it holds, and what it owes, across crashes and restarts.

    FOLDER[/partition-N]/run-<16 hexadecimal digits>/      one store of generations for each run

One record is written before a reply is sent: the sequence number, the round, the digest of the base
model, the new residual, the update, and the rest of the reply. The residual is what was meant minus
what exactly those bytes decode to. See docs/journal.md for the protocol.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from flwr.app import Context
from numpy.typing import NDArray

from flowerpress.client.held import Held, forget, load, save
from flowerpress.compression import ConfigError, StorageError
from flowerpress.protos import to_numpy, to_record
from flowerpress.protos.store import Snapshot, Store

__all__ = ["STATE_FOLDER", "Journal", "Keeper", "keeper", "state_folder"]

STATE_FOLDER = "state-folder"
"""The name in a node's configuration under which it is told where its journal is."""

_FORMAT = "flowerpress.journal/1"
_FACTS = ("version", "sequence", "round", "asked_at", "owed", "orphaned", "dropped")

logger = logging.getLogger(__name__)


class Keeper(Protocol):
    """Where a client's state is between messages; ``held`` is what was read or saved last."""

    held: Held | None

    def save(self, held: Held) -> None:
        """Keep ``held``.

        Raises:
            StorageError: it cannot be; what was kept before still is.
        """


class _InContext:
    """In Flower's ``Context.state``: it outlasts rounds, and no restart."""

    def __init__(self, context: Context, run: int) -> None:
        self._context = context
        self.held = load(context, run)

    def save(self, held: Held) -> None:
        save(self._context, held)
        self.held = held


class Journal:
    """In the folder of a node, under a lock, with every record synced to disk.

    Args:
        folder: the node's own.
        run: identity of the run, 64 bits.
        sync: whether a record outlasts a loss of power, or only the process.

    Raises:
        StorageError: another process has it open, it cannot be read, or nothing in it is sound.
    """

    def __init__(self, folder: Path, run: int, *, sync: bool = True) -> None:
        path = folder / f"run-{run:016x}"
        self._store = Store(path, sync=sync)
        try:
            snapshot = self._store.load()
            self.held = None if snapshot is None else _from_snapshot(path, run, snapshot)
        except BaseException:
            self._store.close()
            raise
        if snapshot is None:
            _name_others(path)

    def save(self, held: Held) -> None:
        """Commit ``held`` as one record."""
        self._store.commit(_to_snapshot(held))
        self.held = held

    def close(self) -> None:
        """Let others open it."""
        self._store.close()


def state_folder(given: str | Path | None, context: Context) -> Path | None:
    """Return the folder of a node's journals: ``given``, or what its configuration says; or None.

    Nodes that have a partition get a folder of their own in it.

    Raises:
        ConfigError: the configuration says something else than a path.
    """
    folder = context.node_config.get(STATE_FOLDER) if given is None else given
    if folder is None:
        return None
    if not isinstance(folder, str | Path) or not str(folder):
        raise ConfigError(f"{STATE_FOLDER} of the node is {folder!r}; it must be a path")
    partition = context.node_config.get("partition-id")
    return Path(folder) if partition is None else Path(folder) / f"partition-{partition}"


@contextmanager
def keeper(folder: Path | None, context: Context, run: int) -> Iterator[Keeper]:
    """Open what a client keeps of a run, for one message.

    A journal is authoritative: what Flower's context holds is taken over by an empty one, and is
    emptied then, for Flower saves it after the reply and loses it at a restart.

    Raises:
        StorageError: the journal cannot be used.
    """
    if folder is None:
        yield _InContext(context, run)
        return
    journal = Journal(folder, run)
    try:
        if journal.held is None and (held := load(context, run)) is not None:
            journal.save(held)
        forget(context)
        yield journal
    finally:
        journal.close()


def _to_snapshot(held: Held) -> Snapshot:
    groups: dict[str, dict[str, NDArray[Any]]] = {
        "model": to_numpy(held.model),
        "residual": held.residuals,
        "warm": held.warm,
        "change": held.change,
    }
    # Right after sending, both are the same arrays.
    shared = held.reference is held.change
    if not shared:
        groups["reference"] = held.reference
    return Snapshot(
        {
            "format": _FORMAT,
            "run": f"{held.run:016x}",
            "digest": held.digest.hex(),
            "shared": shared,
            **{name: getattr(held, name) for name in _FACTS},
        },
        {
            f"{kind}/{name}": array
            for kind, group in groups.items()
            for name, array in group.items()
        },
        {"pending": held.pending, "records": held.records, "plan": held.plan},
    )


def _from_snapshot(path: Path, run: int, snapshot: Snapshot) -> Held:
    groups: dict[str, dict[str, NDArray[Any]]] = {}
    for name, array in snapshot.arrays.items():
        kind, _, own = name.partition("/")
        groups.setdefault(kind, {})[own] = array
    facts, change = snapshot.facts, groups.get("change", {})
    try:
        if facts["format"] != _FORMAT or int(facts["run"], 16) != run:
            raise StorageError(path, "not the journal of this run; move it away")
        return Held(
            run=run,
            digest=bytes.fromhex(facts["digest"]),
            model=to_record(groups.get("model", {})),
            residuals=groups.get("residual", {}),
            warm=groups.get("warm", {}),
            change=change,
            reference=change if facts["shared"] else groups.get("reference", {}),
            pending=snapshot.blobs["pending"],
            records=snapshot.blobs["records"],
            plan=snapshot.blobs["plan"],
            **{name: facts[name] for name in _FACTS},
        )
    except (KeyError, TypeError, ValueError) as error:
        raise StorageError(path, f"not a journal that this version reads: {error}") from error


def _name_others(path: Path) -> None:
    """Say what other runs of this node left owing: nothing is deleted, and nobody sends it."""
    owing = {}
    for other in sorted(path.parent.glob("run-*")):
        try:
            with Store(other) as store:
                snapshot = store.load()
        except StorageError as error:  # this run's own, or one that another process goes on with
            logger.debug("flowerpress: %s", error)
            continue
        owed = 0.0 if snapshot is None else float(snapshot.facts.get("owed", 0.0))
        if owed:
            owing[other.name] = owed
    if owing:
        logger.warning(
            "flowerpress: residuals of mass %g of %d other runs stay unsent in %s and count as "
            "orphaned; what will not go on may be deleted: %s",
            sum(owing.values()),
            len(owing),
            path.parent,
            ", ".join(owing),
        )
