"""One trained model to one update: the change, what is owed, the codec, and what is owed then."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from flwr.app import Context, RecordDict
from numpy.typing import NDArray

from flowerpress.client.asked import Asked, measured
from flowerpress.client.held import Held
from flowerpress.client.settle import sound
from flowerpress.compression import (
    ConfigError,
    Manifest,
    Preset,
    compensate,
    difference,
    encode_frames,
    residual,
    warmth,
)
from flowerpress.compression.mass import mass
from flowerpress.protos import Instruction, Kind, Update, pack, to_numpy

__all__ = ["coded"]


def coded(
    held: Held,
    instruction: Instruction,
    context: Context,
    content: RecordDict,
    asked: Asked,
    uplink: Preset | None,
) -> tuple[Held, bytes, bytes]:
    """Return the state after sending, the update to send, and what was measured.

    Args:
        held: the state that the app trained from.
        instruction: the server's.
        context: Flower's.
        content: the app's reply, with the trained model as its only ArrayRecord.
        asked: the codec as the server wants it.
        uplink: this client's own codec, if it has one.

    Raises:
        ConfigError: the app answered with no model or several.
        ManifestError: it is another model.
        EncodeError: it holds NaN or infinity.
    """
    if len(content.array_records) != 1:
        raise ConfigError(
            f"the ClientApp answered with {len(content.array_records)} ArrayRecords; "
            "press() sends exactly one, the trained model"
        )
    before = to_numpy(held.model)
    manifest = Manifest.of(before)
    (record,) = content.array_records.values()
    after = manifest.match(to_numpy(record))

    def delta() -> dict[str, NDArray[Any]]:
        return compensate(manifest, difference(manifest, after, before), held.residuals)

    points, changed = b"", None
    choice = uplink or asked.choice
    if instruction.settings:
        changed = delta()
        points = measured(instruction, manifest, changed, held, choice)
        # They are a part of what this client may send.
        choice = uplink or asked.within(len(points))
    plan = choice.plan(manifest)
    sequence = max(held.sequence, instruction.watermark) + 1
    if plan.lossless:
        kind, tensors = Kind.MODEL, after
    else:
        kind = Kind.DELTA
        tensors = delta() if changed is None else changed
    frames, decoded = encode_frames(
        manifest,
        plan,
        tensors,
        _generator(instruction, context),
        references=held.change if kind is Kind.DELTA else {},
        warm=held.warm,
    )
    update = Update(
        kind=kind,
        run=instruction.run,
        round=instruction.round,
        client=instruction.client,
        sequence=sequence,
        manifest_digest=manifest.digest,
        frames=frames,
        base=held.digest,
    )
    rest, overflowed = sound(residual(manifest, plan, tensors, decoded))
    blob = pack(update)
    # A model needs no second sending: the next one holds all that this one does.
    pending = blob if kind is Kind.DELTA else b""
    warm = warmth(manifest, frames)
    return (
        replace(
            held,
            sequence=sequence,
            residuals=rest,
            pending=pending,
            warm=warm,
            reference=held.change,
            round=instruction.round,
            owed=mass(rest),
            dropped=held.dropped + overflowed,
        ),
        blob,
        points,
    )


def _generator(instruction: Instruction, context: Context) -> np.random.Generator:
    """Return the generator of this client, round and run.

    The stream is the partition where there is one, so that a simulation draws the same numbers
    whatever identities its engine gives to the nodes.
    """
    stream = context.node_config.get("partition-id", context.node_id)
    return np.random.default_rng([instruction.seed, instruction.round, int(stream)])
