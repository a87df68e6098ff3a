"""The client mod: a plain model in, a plain model out, compressed bytes on both sides."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import copy
from dataclasses import replace
from logging import WARNING
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MessageType, RecordDict
from flwr.clientapp.typing import ClientAppCallable, Mod
from flwr.supercore import log
from numpy.typing import NDArray

from flowerpress.client.asked import Asked, asked_for, measured
from flowerpress.client.carriers import carrier_for
from flowerpress.client.held import Held, apply, load, save, settle
from flowerpress.compression import (
    ConfigError,
    EncodeError,
    FlowerpressError,
    Manifest,
    Preset,
    WireError,
    compensate,
    difference,
    encode_frames,
    residual,
    warmth,
)
from flowerpress.compression.rates.choice import choose
from flowerpress.protos import (
    RECORD,
    Instruction,
    Kind,
    Receipt,
    Status,
    Update,
    pack,
    to_numpy,
)

__all__ = ["press"]


def press(
    uplink: str | Path | Preset | None = None,
    *,
    uplink_rate: float | Callable[[Context], float] | None = None,
) -> Mod:
    """Return a mod that compresses what a ClientApp exchanges with a ``Pressed`` strategy.

        app = ClientApp(mods=[press()])

    The app itself sees what it always saw: one ``ArrayRecord`` with the model in the message, and
    it answers with one. Between them this client's copy of the model is brought up to date, and
    the change that training made is coded with error feedback.

    Args:
        uplink: the codec of this client's updates, such as ``"stc"`` or ``"int8"``, or the path of
            a policy (``.toml``) or a plan (``.json``). None follows what the server asks for.
        uplink_rate: bits a second of this client's uplink, for budgets that depend on it: a number,
            or a function of Flower's context. None: ``uplink-rate`` of the node's configuration,
            if it has one.

    Raises:
        ConfigError: ``uplink`` names no codec, or its file cannot be used.
    """
    own = None if uplink is None else choose(uplink)

    def rate(context: Context) -> float:
        given: Any = uplink_rate(context) if callable(uplink_rate) else uplink_rate
        if given is None:
            given = context.node_config.get("uplink-rate", 0.0)
        usable = isinstance(given, int | float) and not isinstance(given, bool)
        return float(given) if usable and 0 <= given < math.inf else 0.0

    def mod(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        instruction = Instruction.read(message.content)
        if instruction is None:
            return call_next(message, context)  # a server without Pressed
        try:
            return _pressed(message, context, call_next, instruction, own, rate(context))
        except FlowerpressError as error:
            log(WARNING, "flowerpress: left out of round %d: %s", instruction.round, error)
            held = load(context, instruction.run)
            receipt = Receipt(
                Status.REFUSED,
                held.version if held else 0,
                held.digest if held else b"",
                error=type(error).__name__,
                field=error.field
                if isinstance(error, WireError)
                else error.tensor
                if isinstance(error, EncodeError)
                else "",
                message=str(error),
            )
            return _reply(RecordDict(), receipt, message)

    return mod


def _pressed(
    message: Message,
    context: Context,
    call_next: ClientAppCallable,
    instruction: Instruction,
    uplink: Preset | None,
    rate: float,
) -> Message:
    carrier = carrier_for(instruction, context)
    blob = carrier.detach(message.content, instruction.arrays, None, instruction.claim)
    held = load(context, instruction.run)
    asked = asked_for(instruction, held, rate) if held is not None else None
    # The server has the change at hand only if it expects a codec that uses it.
    keep_change = asked is not None and all(
        choice.uses_reference for choice in (asked.choice, uplink) if choice is not None
    )
    if held is not None:
        held = settle(held, instruction)
    held = apply(held, instruction, blob, keep_change=keep_change)
    # A client's first plan needs the model that came with it.
    asked = asked or asked_for(instruction, held, rate)
    if held is None or asked is None:
        return _reply(RecordDict(), Receipt(Status.NEED_MODEL, 0), message)
    held = replace(held, plan=asked.plan)
    save(context, held)

    # A record of the app's own: some apps train in place, and what is held must stay as it is.
    own = ArrayRecord({name: copy(array) for name, array in held.model.items()})
    rest = {k: v for k, v in message.content.items() if k not in (instruction.arrays, RECORD)}
    message.content = RecordDict({instruction.arrays: own, **rest})
    reply = call_next(message, context)
    if reply.has_error():
        return reply
    points, claim = b"", b""
    if reply.metadata.message_type.split(".")[0] == MessageType.TRAIN:
        held, packed, points = _update(held, instruction, context, reply.content, asked, uplink)
        # Before it is sent: an update that does not get through is sent again with the next.
        save(context, held)
        key = next(iter(reply.content.array_records))
        claim = carrier.attach(reply.content, key, packed, held.sequence)
    Receipt(
        Status.OK,
        held.version,
        held.digest,
        plan_digest=instruction.plan_digest,
        uplink_rate=rate,
        points=points,
        claim=claim,
    ).write(reply.content)
    return reply


def _update(
    held: Held,
    instruction: Instruction,
    context: Context,
    content: RecordDict,
    asked: Asked,
    uplink: Preset | None,
) -> tuple[Held, bytes, bytes]:
    """Return the state after sending, the blob to send, and what was measured."""
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
    rest = residual(manifest, plan, tensors, decoded)
    blob = pack(update)
    # A model needs no second sending: the next one holds all that this one does.
    pending = blob if kind is Kind.DELTA else b""
    warm = warmth(manifest, frames)
    return (
        replace(held, sequence=sequence, residuals=rest, pending=pending, warm=warm),
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


def _reply(content: RecordDict, receipt: Receipt, message: Message) -> Message:
    receipt.write(content)
    return Message(content, reply_to=message)
