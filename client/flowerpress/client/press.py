"""The client mod: a plain model in, a plain model out, compressed bytes on both sides."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from logging import WARNING

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MessageType, RecordDict
from flwr.clientapp.typing import ClientAppCallable, Mod
from flwr.supercore import log

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
    preset,
    residual,
    warmth,
)
from flowerpress.protos import (
    RECORD,
    Carrier,
    Instruction,
    Kind,
    MessageCarrier,
    Receipt,
    Status,
    Update,
    pack,
    to_numpy,
)

__all__ = ["press"]

_CARRIERS: dict[str, Carrier] = {MessageCarrier.name: MessageCarrier()}


def press(uplink: str | None = None) -> Mod:
    """Return a mod that compresses what a ClientApp exchanges with a ``Pressed`` strategy.

        app = ClientApp(mods=[press()])

    The app itself sees what it always saw: one ``ArrayRecord`` with the model in the message, and
    it answers with one. Between them this client's copy of the model is brought up to date, and
    the change that training made is coded with error feedback.

    Args:
        uplink: the codec of this client's updates, such as ``"stc"`` or ``"int8"``. None follows
            what the server asks for.

    Raises:
        ConfigError: ``uplink`` names no codec.
    """
    if uplink is not None:
        preset(uplink)

    def mod(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        instruction = Instruction.read(message.content)
        if instruction is None:
            return call_next(message, context)  # a server without Pressed
        try:
            return _pressed(message, context, call_next, instruction, uplink)
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
    uplink: str | None,
) -> Message:
    if instruction.carrier not in _CARRIERS:
        raise ConfigError(
            f"the server sends over the carrier {instruction.carrier[:32]!r}, "
            f"this client knows {', '.join(_CARRIERS)}"
        )
    carrier = _CARRIERS[instruction.carrier]
    blob = carrier.detach(message.content, instruction.arrays, limit=None)
    asked = preset(instruction.uplink)
    own_uplink = asked if uplink is None else preset(uplink)
    # The server has the change at hand only if it expects a codec that uses it.
    keep_change = asked.uses_reference and own_uplink.uses_reference
    held = load(context, instruction.run)
    if held is not None:
        held = settle(held, instruction)
    held = apply(held, instruction, blob, keep_change=keep_change)
    if held is None:
        return _reply(RecordDict(), Receipt(Status.NEED_MODEL, 0), message)
    save(context, held)

    # A record of the app's own: some apps train in place, and what is held must stay as it is.
    own = ArrayRecord({name: copy(array) for name, array in held.model.items()})
    rest = {k: v for k, v in message.content.items() if k not in (instruction.arrays, RECORD)}
    message.content = RecordDict({instruction.arrays: own, **rest})
    reply = call_next(message, context)
    if reply.has_error():
        return reply
    receipt = Receipt(Status.OK, held.version, held.digest)
    if reply.metadata.message_type.split(".")[0] == MessageType.TRAIN:
        held, packed = _update(held, instruction, context, reply.content, own_uplink)
        key = next(iter(reply.content.array_records))
        carrier.attach(reply.content, key, packed)
        save(context, held)
    receipt.write(reply.content)
    return reply


def _update(
    held: Held,
    instruction: Instruction,
    context: Context,
    content: RecordDict,
    uplink: Preset,
) -> tuple[Held, bytes]:
    """Return the state after sending, and the blob to send."""
    if len(content.array_records) != 1:
        raise ConfigError(
            f"the ClientApp answered with {len(content.array_records)} ArrayRecords; "
            "press() sends exactly one, the trained model"
        )
    before = to_numpy(held.model)
    manifest = Manifest.of(before)
    (record,) = content.array_records.values()
    after = manifest.match(to_numpy(record))

    plan = uplink.plan(manifest)
    sequence = max(held.sequence, instruction.watermark) + 1
    if plan.lossless:
        kind, tensors = Kind.MODEL, after
    else:
        kind = Kind.DELTA
        tensors = compensate(manifest, difference(manifest, after, before), held.residuals)
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
    return replace(held, sequence=sequence, residuals=rest, pending=pending, warm=warm), blob


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
