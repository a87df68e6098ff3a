"""The client mod: a plain model in, a plain model out, compressed bytes on both sides."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import copy
from dataclasses import replace
from logging import INFO, WARNING
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, Context, Message, MessageType, RecordDict
from flwr.clientapp.typing import ClientAppCallable, Mod
from flwr.supercore import log

from flowerpress.client.answer import kept_records, repeated
from flowerpress.client.asked import asked_for
from flowerpress.client.carriers import carrier_for
from flowerpress.client.coded import coded
from flowerpress.client.held import Held, apply
from flowerpress.client.journal import Journal, Keeper, keeper, state_folder
from flowerpress.client.settle import decayed, settle
from flowerpress.compression import (
    ConfigError,
    EncodeError,
    FlowerpressError,
    Manifest,
    Preset,
    WireError,
)
from flowerpress.compression.rates.choice import choose
from flowerpress.protos import RECORD, Instruction, Receipt, Status, largest_blob, to_numpy

__all__ = ["press"]


def press(
    uplink: str | Path | Preset | None = None,
    *,
    uplink_rate: float | Callable[[Context], float] | None = None,
    journal: str | Path | None = None,
    decay: float | None = None,
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
        journal: the folder in which this node keeps its state across crashes and restarts, its own
            and nobody else's. None: ``state-folder`` of the node's configuration; if it has none,
            state lives in Flower's context, which a restart of the SuperNode loses.
        decay: by what the residual is multiplied each round, above 0 and up to 1; None: what the
            server says.

    Raises:
        ConfigError: ``uplink`` names no codec, or its file cannot be used; or no such ``decay``.
    """
    own = None if uplink is None else choose(uplink)
    if decay is not None and not 0.0 < decay <= 1.0:
        raise ConfigError(f"decay is {decay}; it must be above 0 and up to 1 (no decay)")

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
        if decay is not None:
            instruction = replace(instruction, decay=decay)
        held = None
        try:
            folder = state_folder(journal, context)
            with keeper(folder, context, instruction.run) as kept:
                try:
                    return _pressed(
                        message, context, call_next, instruction, kept, own, rate(context)
                    )
                finally:
                    held = kept.held
        except FlowerpressError as error:
            log(WARNING, "flowerpress: left out of round %d: %s", instruction.round, error)
            return _reply(RecordDict(), _refusal(held, error), message)

    return mod


def _pressed(
    message: Message,
    context: Context,
    call_next: ClientAppCallable,
    instruction: Instruction,
    kept: Keeper,
    uplink: Preset | None,
    rate: float,
) -> Message:
    carrier = carrier_for(instruction, context)
    held = kept.held
    train = message.metadata.message_type.split(".")[0] == MessageType.TRAIN
    if train and held is not None and (answered := repeated(held, instruction)) is not None:
        log(INFO, "flowerpress: round %d is answered from the journal", instruction.round)
        key, content = answered
        claim = carrier.attach(content, key, held.pending, held.sequence)
        return _reply(content, replace(Receipt.read(content), claim=claim), message)
    blob = carrier.detach(message.content, instruction.arrays, _largest(held), instruction.claim)
    asked = asked_for(instruction, held, rate) if held is not None else None
    # The server has the change at hand only if it expects a codec that uses it.
    keep_change = asked is not None and all(
        choice.uses_reference for choice in (asked.choice, uplink) if choice is not None
    )
    if held is not None and train:
        held = settle(held, instruction, message.metadata.created_at)
        held = decayed(held, instruction.round, instruction.decay)
    held = apply(held, instruction, blob, keep_change=keep_change)
    # A client's first plan needs the model that came with it.
    asked = asked or asked_for(instruction, held, rate)
    if held is None or asked is None:
        lacking = replace(_receipt(Status.NEED_MODEL, kept.held), version=0, digest=b"")
        return _reply(RecordDict(), lacking, message)
    if held.plan != asked.plan:
        held = replace(held, plan=asked.plan)

    # A record of the app's own: some apps train in place, and what is held must stay as it is.
    own = ArrayRecord({name: copy(array) for name, array in held.model.items()})
    rest = {k: v for k, v in message.content.items() if k not in (instruction.arrays, RECORD)}
    message.content = RecordDict({instruction.arrays: own, **rest})
    reply = call_next(message, context)
    packed, points = b"", b""
    if train and not reply.has_error():
        held = replace(held, asked_at=max(held.asked_at, message.metadata.created_at))
        try:
            held, packed, points = coded(held, instruction, context, reply.content, asked, uplink)
        except FlowerpressError:
            kept.save(held)
            raise
    if reply.has_error():
        if held is not kept.held:
            kept.save(held)
        return reply
    receipt = _receipt(
        Status.OK,
        held,
        plan_digest=instruction.plan_digest,
        uplink_rate=rate,
        points=points,
    )
    receipt.write(reply.content)
    key = next(iter(reply.content.array_records)) if packed else ""
    if packed and isinstance(kept, Journal):
        held = replace(held, pending=packed, records=kept_records(reply.content, key))
    if held is not kept.held:
        kept.save(held)
    if packed:  # only now: what was not written down must not be sent
        claim = carrier.attach(reply.content, key, packed, held.sequence)
        replace(receipt, claim=claim).write(reply.content)
    return reply


def _largest(held: Held | None) -> int | None:
    """Return the most bytes that a downlink may have; None before there is a model to know it by.

    A model, and changes since then that are no longer than one in all.
    """
    return None if held is None else 2 * largest_blob(Manifest.of(to_numpy(held.model)))


def _receipt(status: Status, held: Held | None, **fields: Any) -> Receipt:
    """Return a receipt of what is held, with the client's books."""
    if held is None:
        return Receipt(status, 0, **fields)
    return Receipt(
        status,
        held.version,
        held.digest,
        owed=held.owed,
        orphaned=held.orphaned,
        dropped=held.dropped,
        **fields,
    )


def _refusal(held: Held | None, error: FlowerpressError) -> Receipt:
    return _receipt(
        Status.REFUSED,
        held,
        error=type(error).__name__,
        field=error.field
        if isinstance(error, WireError)
        else error.tensor
        if isinstance(error, EncodeError)
        else "",
        message=str(error),
    )


def _reply(content: RecordDict, receipt: Receipt, message: Message) -> Message:
    receipt.write(content)
    return Message(content, reply_to=message)
