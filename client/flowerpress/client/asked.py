"""What the server asks a client to code its update with, and to measure on it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowerpress.client.held import Held
from flowerpress.compression import (
    ConfigError,
    FormatError,
    Manifest,
    Preset,
    SequenceError,
    preset,
)
from flowerpress.compression.rates.allocated import block_counts
from flowerpress.compression.rates.budget import least_bytes
from flowerpress.compression.rates.menu import MOST_SETTINGS, measure
from flowerpress.compression.rates.menu import menu as checked_menu
from flowerpress.compression.rates.plan import RatePlan
from flowerpress.compression.rates.statistics import pack_points
from flowerpress.compression.rates.wire import pack_plan, plan_digest, unpack_plan
from flowerpress.protos import Instruction, to_numpy

__all__ = ["Asked", "asked_for", "measured"]

# Of its budget a client spends at most this on what it measured.
_LARGEST_SHARE = 0.5


class Asked:
    """The codec of an update as the server wants it.

    Attributes:
        choice: the preset or plan, with this client's budget.
        plan: the plan in force, packed whole, to be held; empty without one.
    """

    def __init__(self, choice: Preset, plan: bytes = b"") -> None:
        self.choice = choice
        self.plan = plan

    def within(self, used: int) -> Preset:
        """Return the codec with ``used`` bytes less in its budget."""
        if isinstance(self.choice, RatePlan) and self.choice.target_bytes is not None:
            return replace(self.choice, target_bytes=max(1, self.choice.target_bytes - used))
        return self.choice


def asked_for(instruction: Instruction, held: Held | None, rate: float = 0.0) -> Asked | None:
    """Return what the server asks for; None where a plan builds on one that is not held here.

    A client that knows its ``rate`` (bits a second, 0: it does not) keeps to the deadline before
    the server has heard of it.

    Raises:
        WireError: a plan that no server sends.
        ConfigError: an unknown codec.
    """
    if not instruction.plan_digest:
        return Asked(preset(instruction.uplink))
    if held is None:
        return None
    manifest = Manifest.of(to_numpy(held.model))
    own = unpack_plan(held.plan, manifest, None) if held.plan else None
    plan = own
    if instruction.plan:
        try:
            plan = unpack_plan(instruction.plan, manifest, own)
        except SequenceError:
            return None
        if plan_digest(plan) != instruction.plan_digest:
            raise FormatError("plan", "it is not the plan that was announced")
    elif plan is None or plan_digest(plan) != instruction.plan_digest:
        return None
    assert plan is not None
    whole = pack_plan(plan)
    target = instruction.target_bytes or None
    if target is not None and rate > 0 and 0 < instruction.deadline < math.inf:
        in_time = int(min(instruction.deadline * rate / 8, target))
        target = max(in_time, min(target, least_bytes(manifest)))
    return Asked(replace(plan, target_bytes=target), whole)


def measured(
    instruction: Instruction,
    manifest: Manifest,
    tensors: Mapping[str, NDArray[Any]],
    held: Held,
    choice: Preset,
) -> bytes:
    """Return what the settings asked about cost on this update; empty if it would cost too much.

    Raises:
        ConfigError: an unknown setting, too many, or a tensor that does not exist.
    """
    if not instruction.settings or not instruction.tensors:
        return b""
    if len(instruction.settings) > MOST_SETTINGS or len(instruction.tensors) > len(manifest):
        raise ConfigError("the server asks to measure more than a client does")
    settings = checked_menu(instruction.settings)
    if any(index >= len(manifest) for index in instruction.tensors):
        raise ConfigError("the server asks about a tensor that the model does not have")
    names = [manifest.specs[index].name for index in instruction.tensors]
    points = measure(
        manifest,
        {name: tensors[name] for name in names},
        settings,
        rng=np.random.default_rng([instruction.seed, instruction.round]),
        references=held.change,
        warm=held.warm,
        groups=block_counts(manifest, names, instruction.split),
    )
    packed = pack_points(points)
    limit = choice.target_bytes if isinstance(choice, RatePlan) else None
    return b"" if limit is not None and len(packed) > _LARGEST_SHARE * limit else packed
