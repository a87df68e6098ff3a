"""Hostile clients, simulated: what some of them answer in place of what they have learned.

An attack is written as ``name(share=0.2, ...)``. Which clients are hostile is drawn from the run's
seed and stays so for the run. They train like everybody else; then the model or the number of
examples in their answer is changed, before it is compressed.

=====================  ===========================================================================
``counts(value=...)``  claims to have trained on so many examples, and sends a random model
``nan``                sends one NaN in each tensor
``noise(scale=...)``   sends a normal random change, so many times as long as what it learned
``scale(factor=...)``  multiplies its change
``signflip(scale=..)`` sends the opposite of its change, multiplied
``zeros``              sends a model of zeros
=====================  ===========================================================================
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message
from flwr.clientapp.typing import ClientAppCallable, Mod
from numpy.typing import NDArray

from flowerpress.compression.errors import ConfigError
from flowerpress.compression.spelling import build
from flowerpress.simulations.config import SimulationConfig

__all__ = ["ATTACKS", "Attack", "attacking", "hostile", "read_attack"]

# Keeps the draw of hostile clients apart from every other draw of a run.
_STREAM = 0x60_57_11_E5

Values = NDArray[np.float32]


@dataclass(frozen=True)
class Attack(ABC):
    """What a ``share`` of all clients does."""

    share: float = 0.2

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ConfigError(f"share of an attack is {self.share:g}; it must be between 0 and 1")
        for name, value in vars(self).items():
            if not math.isfinite(value):
                raise ConfigError(f"{name} of an attack is {value:g}; it must be a finite number")

    @abstractmethod
    def change(self, change: Values, model: Values, rng: np.random.Generator) -> Values:
        """Return what stands in for ``change``, made by training ``model``; float32, same shape."""

    @property
    def examples(self) -> float | None:
        """The number of examples that it claims; None: the true one."""
        return None


@dataclass(frozen=True)
class Counts(Attack):
    """``counts``: a random model that claims to stand for everything."""

    value: float = 1e12

    def change(self, change: Values, model: Values, rng: np.random.Generator) -> Values:
        """Return the way from the model to a random one of the same spread."""
        return rng.permutation(model.reshape(-1)).reshape(model.shape) - model

    @property
    def examples(self) -> float | None:
        """The claim."""
        return self.value


@dataclass(frozen=True)
class Nan(Attack):
    """``nan``: a NaN at the start of each tensor."""

    def change(self, change: Values, model: Values, rng: np.random.Generator) -> Values:
        """Return the change with the NaN."""
        out = change.copy()
        out.reshape(-1)[:1] = np.nan
        return out


@dataclass(frozen=True)
class Noise(Attack):
    """``noise``: normal noise of ``scale`` times the norm of what was learned."""

    scale: float = 10.0

    def change(self, change: Values, model: Values, rng: np.random.Generator) -> Values:
        """Return the noise."""
        noise = rng.standard_normal(change.shape, np.float32)
        length = self.scale * float(np.linalg.norm(change)) / math.sqrt(max(change.size, 1))
        return noise * np.float32(length)


@dataclass(frozen=True)
class Scale(Attack):
    """``scale``: ``factor`` times what was learned."""

    factor: float = 100.0

    def change(self, change: Values, model: Values, rng: np.random.Generator) -> Values:
        """Return the multiple."""
        return change * np.float32(self.factor)


@dataclass(frozen=True)
class SignFlip(Attack):
    """``signflip``: ``scale`` times the opposite of what was learned."""

    scale: float = 10.0

    def change(self, change: Values, model: Values, rng: np.random.Generator) -> Values:
        """Return the opposite."""
        return change * np.float32(-self.scale)


@dataclass(frozen=True)
class Zeros(Attack):
    """``zeros``: a model that has forgotten everything."""

    def change(self, change: Values, model: Values, rng: np.random.Generator) -> Values:
        """Return the way to zero."""
        return -model


ATTACKS: dict[str, type[Attack]] = {
    "counts": Counts,
    "nan": Nan,
    "noise": Noise,
    "scale": Scale,
    "signflip": SignFlip,
    "zeros": Zeros,
}


def read_attack(text: str) -> Attack:
    """Return the attack that ``text`` spells.

    Raises:
        UnknownNameError: no such attack or parameter.
        ConfigError: a value that is not allowed.
    """
    return build("attack", text, ATTACKS)


def hostile(share: float, clients: int, seed: int) -> frozenset[int]:
    """Return the partitions of the hostile clients: ``round(share * clients)``, at least one."""
    count = max(1, round(share * clients))
    drawn = np.random.default_rng([_STREAM, seed]).permutation(clients)[:count]
    return frozenset(int(partition) for partition in drawn)


def attacking(config: SimulationConfig) -> Mod:
    """Return the mod that changes what hostile clients answer.

    Args:
        config: with an ``attack``.

    Raises:
        ConfigError: the attack is not one.
    """
    assert config.attack is not None
    attack = read_attack(config.attack)

    def mod(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        if message.metadata.message_type != "train":
            return call_next(message, context)
        partition = int(context.node_config["partition-id"])
        if partition not in hostile(
            attack.share, int(context.node_config["num-partitions"]), config.seed
        ):
            return call_next(message, context)
        key, record = next(iter(message.content.array_records.items()))
        before = {name: array.numpy() for name, array in record.items()}
        server_round = int(str(message.content.config_records["config"]["server-round"]))
        reply = call_next(message, context)
        if reply.has_error():
            return reply
        rng = np.random.default_rng([_STREAM, config.seed, server_round, partition])
        reply.content[key] = _changed(attack, before, reply.content.array_records[key], rng)
        (metrics,) = reply.content.metric_records.values()
        if attack.examples is not None:
            metrics["num-examples"] = attack.examples
        return reply

    return mod


def _changed(
    attack: Attack,
    before: dict[str, NDArray[np.generic]],
    record: ArrayRecord,
    rng: np.random.Generator,
) -> ArrayRecord:
    out = {}
    for name, array in record.items():
        after = array.numpy()
        if after.dtype == np.float32:
            model = before[name].astype(np.float32)
            after = model + attack.change(after - model, model, rng)
        out[name] = Array(after)
    return ArrayRecord(out)
