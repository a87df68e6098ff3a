"""One step for all tensors of an update, such that a budget of bytes or of error is met."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.codec import Codec, Context
from flowerpress.compression.errors import ConfigError
from flowerpress.compression.moments import squares
from flowerpress.compression.plan import Coded, Joint
from flowerpress.compression.rd.body import SMALLEST_STEP
from flowerpress.compression.rd.codec import RateDistortion, subject
from flowerpress.compression.rd.search import LARGEST_STEP, Try, bracket, settle
from flowerpress.compression.rd.subject import Subject
from flowerpress.compression.spec import TensorSpec
from flowerpress.compression.wire import Writer

__all__ = ["Budget", "Controlled"]

_ENOUGH = 0.006  # left over
_NEAR = 1.2
_RECIPE = 8  # bytes of one more in an update
_REFINED = 8  # tensors
_REFINEMENTS = 6  # passes over each


@dataclass(frozen=True)
class Budget:
    """What an update may cost; exactly one is given.

    ``step`` is absolute, ``relative`` a step in units of the root mean square of all tensors
    together, ``max_nmse`` the largest squared error over all tensors relative to their energy,
    ``target_bytes`` the largest number of bytes of all bodies with ``overhead`` bytes beside them.
    """

    step: float | None = None
    relative: float | None = None
    max_nmse: float | None = None
    target_bytes: int | None = None
    overhead: int = 0

    def __post_init__(self) -> None:
        given = [self.step, self.relative, self.max_nmse, self.target_bytes]
        if sum(value is not None for value in given) != 1:
            raise ConfigError("give exactly one of step, relative, max_nmse and target_bytes")
        for name, value in (("step", self.step), ("relative", self.relative)):
            if value is not None and not SMALLEST_STEP <= value <= LARGEST_STEP:
                raise ConfigError(f"{name} is {value}; it must be positive")
        if self.max_nmse is not None and not 0 < self.max_nmse < 1:
            raise ConfigError(f"max_nmse is {self.max_nmse}; it must be above 0 and below 1")
        if self.target_bytes is not None and self.target_bytes < 1:
            raise ConfigError(f"target_bytes is {self.target_bytes}; it must be at least 1")


@dataclass(frozen=True)
class Controlled(Joint):
    """Finds the step of an update: once for a step, in a few passes for a budget.

    ``weights`` say how much the squared error of each tensor counts (by name, one if missing): its
    step is that of the others divided by the root of its weight.
    """

    budget: Budget
    weights: tuple[tuple[str, float], ...] = ()

    def encode(
        self,
        specs: Sequence[TensorSpec],
        tensors: Sequence[NDArray[Any]],
        contexts: Sequence[Context],
    ) -> list[Coded]:
        """Return all tensors coded with steps in proportion.

        Three passes are usual for a budget; what a step does not change is worked out once. Bytes
        are then filled up to the target by giving single tensors the next finer step tried.
        """
        subjects = [
            subject(x, spec, context)
            for x, spec, context in zip(tensors, specs, contexts, strict=True)
        ]
        relative = _relative(specs, self.weights)
        energy = sum(s.energy for s in subjects)
        size = sum(s.values.size for s in subjects)
        rms = math.sqrt(energy / size) if size and energy else 0.0
        if not rms:
            return [Coded(RateDistortion(1.0), b"") for _ in subjects]

        def tried(step: float, like: float | None = None) -> Try:
            codecs = [_codec(step * r) for r in relative]
            bodies = [
                s.encode(c.step, like and like * r)
                for s, c, r in zip(subjects, codecs, relative, strict=True)
            ]
            if self.budget.max_nmse is not None:
                lost = sum(map(_lost, subjects, codecs, specs, bodies, contexts))
                return Try(step, lost / energy, bodies, like)
            return Try(step, _cost(codecs, bodies) + self.budget.overhead, bodies, like)

        def forecast(step: float) -> float:
            each = [s.forecast(step * r) for s, r in zip(subjects, relative, strict=True)]
            if self.budget.max_nmse is not None:
                lost = (f.distortion * (step * r) ** 2 for f, r in zip(each, relative, strict=True))
                return sum(lost) / energy
            return sum(f.bits for f in each) / 8 + 2 * len(each) + self.budget.overhead

        if self.budget.step is not None:
            found = [tried(self.budget.step)]
        elif self.budget.relative is not None:
            found = [tried(self.budget.relative * rms)]
        else:
            target = self.budget.max_nmse or self.budget.target_bytes
            assert target is not None
            steps = bracket(max(s.largest for s in subjects), size)
            found = settle(tried, forecast, target, 1.3 if self.budget.max_nmse else -1.3, steps)
        coded, left = self._filled(found, relative)
        if self.budget.target_bytes is None or left <= self.budget.target_bytes * _ENOUGH:
            return coded
        likes = [(found[0].like or found[0].step) * r for r in relative]
        return self._refined(subjects, likes, coded, left)

    def _filled(self, found: list[Try], relative: list[float]) -> tuple[list[Coded], float]:
        """Return the first try, with bodies of a little finer one as far as the target allows.

        And how many bytes are left then.
        """
        base = found[0]
        codecs = [_codec(base.step * r) for r in relative]
        coded = [Coded(codec, body) for codec, body in zip(codecs, base.bodies, strict=True)]
        if self.budget.target_bytes is None:
            return coded, 0.0
        left = self.budget.target_bytes - base.value
        near = [t for t in found[1:] if base.step / _NEAR < t.step < base.step]
        if not near:
            return coded, left
        finer = max(near, key=lambda t: t.step)
        better = [
            Coded(_codec(finer.step * r), body)
            for r, body in zip(relative, finer.bodies, strict=True)
        ]
        growth = [len(b.body) - len(a.body) for a, b in zip(coded, better, strict=True)]
        for index in sorted(range(len(coded)), key=lambda i: -growth[i]):
            price = growth[index] + _price(coded)
            if growth[index] > 0 and price <= left:
                coded[index] = better[index]
                left -= price
        return coded, left

    def _refined(
        self,
        subjects: Sequence[Subject],
        likes: Sequence[float],
        coded: list[Coded],
        left: float,
    ) -> list[Coded]:
        """Return ``coded`` with finer steps for the longest tensors, until few bytes are left.

        With views and ranks kept, the bytes of one tensor hardly jump; those of all do where a
        rank changes.
        """
        assert self.budget.target_bytes is not None
        enough = self.budget.target_bytes * _ENOUGH
        for index in sorted(range(len(coded)), key=lambda i: -len(coded[i].body))[:_REFINED]:
            price = _price(coded)
            start = coded[index]
            assert isinstance(start.codec, RateDistortion)
            goal = len(start.body) + left - price
            low, high, length = 1.0, math.inf, len(start.body)
            for _ in range(_REFINEMENTS):
                if left <= max(enough, price):
                    break
                # A tensor of which nothing is sent begins far from where something is.
                most = low * (_NEAR if length else 2.0)
                factor = min(low * (max(goal, 1) / max(length, 1)) ** (1 / 1.3), most)
                if not low < factor < high:
                    factor = math.sqrt(low * high) if high < math.inf else low * 1.01
                codec = _codec(start.codec.step / factor)
                body = subjects[index].encode(codec.step, likes[index])
                if len(body) > goal:
                    high = factor
                    continue
                low, length = factor, len(body)
                if len(body) > len(coded[index].body):
                    left = goal - len(body)
                    coded[index] = Coded(codec, body)
        return coded


def _price(coded: Sequence[Coded]) -> int:
    """Bytes of one more step among them: the first one more makes each frame name its own."""
    others = {each.codec.step for each in coded if isinstance(each.codec, RateDistortion)}
    return _RECIPE + 2 + (0 if len(others) > 1 else len(coded))


def _codec(step: float) -> RateDistortion:
    return RateDistortion(min(max(step, SMALLEST_STEP), LARGEST_STEP))


def _relative(specs: Sequence[TensorSpec], weights: tuple[tuple[str, float], ...]) -> list[float]:
    by_name = dict(weights)
    for name, weight in weights:
        if not 0 < weight < float("inf"):
            raise ConfigError(f"the weight of {name!r} is {weight}; it must be positive")
    return [1 / math.sqrt(by_name.get(spec.name, 1.0)) for spec in specs]


def _cost(codecs: list[RateDistortion], bodies: list[bytes]) -> int:
    """Bytes of bodies, their lengths and their recipes in an update."""
    lengths = Writer()
    for body in bodies:
        lengths.varint(len(body))
    distinct = len({codec.step for codec in codecs})
    choices = len(bodies) if distinct > 1 else 0
    return sum(map(len, bodies)) + len(lengths) + _RECIPE * distinct + choices


def _lost(subject: Subject, codec: Codec, spec: TensorSpec, body: bytes, context: Context) -> float:
    """Return the squared error of what a receiver decodes."""
    if not body:
        return subject.energy
    decoded = codec.decode(memoryview(body), spec, context.reference)
    rest = np.array(subject.values, np.float32).reshape(-1)
    decoded.add_to(rest, -1.0)
    return squares(rest)
