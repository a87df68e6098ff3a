"""What a client keeps between rounds: its copy of the model, and what its uplink owes.

That is the residual of its codecs, and the last update until the server says that it counted;
beside them, what some codecs go on from the next time. Without a journal all of it lives in
Flower's ``Context.state`` under names of their own, so an app's state is untouched.
``Context.state`` survives rounds but not a restart of the SuperNode: a client that lost it says so
and is sent a whole model.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Context
from numpy.typing import NDArray

from flowerpress.compression import (
    Manifest,
    ManifestError,
    SequenceError,
    apply_frames,
    difference,
    model_digest,
)
from flowerpress.protos import Instruction, Kind, split_updates, to_numpy, to_record, unpack

__all__ = ["Held", "apply", "forget", "load", "save"]

_MODEL = "flowerpress.model"
_RESIDUAL = "flowerpress.residual"
_WARM = "flowerpress.warm"
_CHANGE = "flowerpress.change"
_REFERENCE = "flowerpress.reference"
_STATE = "flowerpress.state"
_BOOKS = ("round", "asked_at", "owed", "orphaned", "dropped")


@dataclass(frozen=True)
class Held:
    """A client's copy of the model at a version of a run, as Flower arrays.

    ``residuals`` maps tensor names to what earlier uplinks left unsent; ``sequence`` counts the
    updates that this client has made in the run; ``pending`` is the last one, as it was sent, until
    the server says that it counted. ``change`` is what led from the version before to this one,
    where the uplink's codec can use it. ``warm`` is what ``warmth`` made of the last one: losing it
    costs accuracy for a round or two, and nothing else. ``plan`` is the last plan that the server
    sent, packed whole; empty: none.

    ``reference`` is the ``change`` that ``pending`` was coded with. ``records`` are the rest of the
    reply that brought it, where a journal keeps them, and ``asked_at`` is when the server made the
    instruction (seconds since the epoch, its clock). ``round`` is the one in which the residuals
    were made, ``owed`` the sum of their absolute values; ``orphaned`` and ``dropped`` are such sums
    of what this client gave up in the run, and of what was left out on purpose.
    """

    run: int
    version: int
    digest: bytes
    sequence: int
    model: ArrayRecord
    residuals: dict[str, NDArray[Any]] = field(default_factory=dict)
    pending: bytes = b""
    warm: dict[str, NDArray[Any]] = field(default_factory=dict)
    change: dict[str, NDArray[Any]] = field(default_factory=dict)
    plan: bytes = b""
    reference: dict[str, NDArray[Any]] = field(default_factory=dict)
    records: bytes = b""
    round: int = 0
    asked_at: float = 0.0
    owed: float = 0.0
    orphaned: float = 0.0
    dropped: float = 0.0


def load(context: Context, run: int) -> Held | None:
    """Return what ``context`` holds of ``run``, or None; another run's state does not count."""
    state = context.state.config_records.get(_STATE)
    if state is None or state["run"] != run.to_bytes(8, "little"):
        return None
    records = context.state.array_records
    return Held(
        run=run,
        version=int(state["version"]),  # type: ignore[arg-type]
        digest=bytes(state["digest"]),  # type: ignore[arg-type]
        sequence=int(state["sequence"]),  # type: ignore[arg-type]
        model=records[_MODEL],
        residuals=to_numpy(records[_RESIDUAL]),
        pending=bytes(state["pending"]),  # type: ignore[arg-type]
        warm=to_numpy(records[_WARM]) if _WARM in records else {},  # older states have none
        change=to_numpy(records[_CHANGE]) if _CHANGE in records else {},
        plan=bytes(state.get("plan", b"")),  # type: ignore[arg-type]
        reference=to_numpy(records[_REFERENCE]) if _REFERENCE in records else {},
        **{name: state.get(name, 0) for name in _BOOKS},  # type: ignore[arg-type]
    )


def save(context: Context, held: Held) -> None:
    """Put ``held`` into ``context``."""
    context.state[_MODEL] = held.model
    context.state[_RESIDUAL] = to_record(held.residuals)
    context.state[_WARM] = to_record(held.warm)
    context.state[_CHANGE] = to_record(held.change)
    context.state[_REFERENCE] = (
        context.state[_CHANGE] if held.reference is held.change else to_record(held.reference)
    )
    context.state[_STATE] = ConfigRecord(
        {
            "run": held.run.to_bytes(8, "little"),
            "version": held.version,
            "digest": held.digest,
            "sequence": held.sequence,
            "pending": held.pending,
            "plan": held.plan,
            **{name: getattr(held, name) for name in _BOOKS},
        }
    )


def forget(context: Context) -> None:
    """Take what ``save`` has put into ``context`` out again."""
    for name in (_MODEL, _RESIDUAL, _WARM, _CHANGE, _REFERENCE, _STATE):
        context.state.pop(name, None)


def apply(
    held: Held | None, instruction: Instruction, blob: bytes | None, *, keep_change: bool = False
) -> Held | None:
    """Return what the client holds after the downlink, or None if it lacks the starting version.

    ``keep_change`` says whether the last change is worth its memory.

    Raises:
        WireError: the blob is broken, or leads to another model than the server's.
    """
    arrays: dict[str, NDArray[Any]] | None = None
    digest = b""
    if instruction.held:
        # One that is ahead serves a server that went back to an earlier state of itself.
        if held is None or not instruction.held <= held.version <= instruction.version:
            return None
        digest = held.digest
        if blob is None and digest == instruction.digest:
            return held
        if held.version > instruction.version:
            return None  # the server was resumed at a round before this version
        arrays = to_numpy(held.model)
    manifest = None if arrays is None else Manifest.of(arrays)
    change: dict[str, NDArray[Any]] = {}
    if keep_change and held is not None and held.version == instruction.version:
        change = held.change

    for part in split_updates(blob) if blob is not None else []:
        update = unpack(part, manifest)
        if update.run != instruction.run:
            raise SequenceError("run", "the downlink belongs to another run")
        if held is not None and instruction.held and update.sequence <= held.version:
            continue  # applied before; the answer that said so was lost
        if update.kind is Kind.MODEL:
            manifest = update.manifest or manifest
            arrays = {}
        elif update.base != digest:
            raise SequenceError("base", "the downlink changes another model than the one held here")
        if manifest is None or arrays is None:
            raise ManifestError("manifest", "the downlink starts without a model")
        before = arrays
        if update.kind is Kind.MODEL and held is not None and held.version + 1 == update.sequence:
            own = to_numpy(held.model)
            before = own if Manifest.of(own) == manifest else {}
        arrays = apply_frames(manifest, arrays, update.frames, change=update.kind is Kind.DELTA)
        manifest.match(arrays)
        change = difference(manifest, arrays, before) if keep_change and before else {}
        digest = model_digest(manifest, arrays)
        if digest != update.result:
            raise SequenceError("result", "the model after the downlink is not the server's")
    if digest != instruction.digest or arrays is None or manifest is None:
        raise SequenceError(
            "digest", "the downlink does not lead to the version that was announced"
        )
    model = to_record({spec.name: arrays[spec.name] for spec in manifest.specs})
    if held is None:
        return Held(instruction.run, instruction.version, digest, 0, model, change=change)
    return replace(held, version=instruction.version, digest=digest, model=model, change=change)
