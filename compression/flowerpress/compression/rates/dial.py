"""One factor for all steps and densities of a plan, such that a message has a number of bytes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import NDArray

from flowerpress.compression.codec import Context
from flowerpress.compression.errors import ConfigError
from flowerpress.compression.moments import squares
from flowerpress.compression.plan import Coded, Joint
from flowerpress.compression.presets import Preset, preset
from flowerpress.compression.presets.ratedistortion import RateDistortionBudget
from flowerpress.compression.rates.alike import alike_plan
from flowerpress.compression.rates.blocks import joined
from flowerpress.compression.rates.message import message_bytes
from flowerpress.compression.rd.control import Budget, Controlled
from flowerpress.compression.spec import Manifest, TensorSpec
from flowerpress.compression.spelling import parse_call

__all__ = ["Dialled", "harder", "harder_text", "is_dialled"]

_MOST_PASSES = 14
_TOLERANCE = 0.006  # of a budget: what is over it is of no use
_AIM = 0.997
_FARTHEST = 64.0  # between two tries
_GROUPED = 12  # bytes of a tensor that its blocks do not have

_Coding = Callable[[float], list[Coded]]


@dataclass(frozen=True)
class Dialled(Joint):
    """Codes tensors with their presets, made harder or gentler by one factor.

    Steps are multiplied by it and densities divided; what has neither stays as it is. Where all
    that can be scaled are steps of ``rd``, they keep their proportions and ``rd`` finds the level
    in a few passes; otherwise every pass codes all scaled tensors (secant method on logarithms).

    ``target_bytes`` is of the whole message: never exceeded, and met within two hundredths unless
    nothing is left to send or the smallest piece is larger than that. ``counts`` says of how many
    blocks each tensor of the message consists; empty: all are in one piece. What is ``kept`` is
    not scaled; empty: nothing is kept.
    """

    choices: tuple[Preset, ...]
    target_bytes: int
    counts: tuple[int, ...] = ()
    kept: tuple[bool, ...] = ()

    def __post_init__(self) -> None:
        own = [
            c
            for i, c in enumerate(self.choices)
            if isinstance(c, RateDistortionBudget) and self._is_scaled(i)
        ]
        plain = [c.step is None and c.relative is None for c in own]
        if any(plain) and not all(plain):
            raise ConfigError(
                "under a budget, give a step (or relative) to every rd of a plan or to none: "
                "there is nothing that says how the others stand to them"
            )

    def encode(
        self,
        specs: Sequence[TensorSpec],
        tensors: Sequence[NDArray[Any]],
        contexts: Sequence[Context],
    ) -> list[Coded]:
        """Return all tensors coded.

        Raises:
            ConfigError: a budget that is exceeded even at the hardest.
            EncodeError: a tensor cannot be encoded.
        """

        def coded(some: Sequence[int], factor: float) -> list[Coded]:
            own = Manifest(tuple(specs[i] for i in some))
            plan = alike_plan(own, [harder(self.choices[i], factor) for i in some])
            return plan.encode(own, [tensors[i] for i in some], [contexts[i] for i in some])

        def everything(found: Sequence[Coded]) -> list[Coded]:
            all_ = done | dict(zip(scaled, found, strict=True))
            return [all_[i] for i in range(len(specs))]

        def length(found: Sequence[Coded]) -> int:
            whole = everything(found)
            return message_bytes(joined(whole, self.counts) if self.counts else whole)

        scaled = [i for i, spec in enumerate(specs) if spec.is_float and self._is_scaled(i)]
        fixed = [i for i in range(len(specs)) if i not in set(scaled)]
        done = dict(zip(fixed, coded(fixed, 1.0), strict=True))
        beside = message_bytes(list(done.values()))
        if not scaled or beside >= self.target_bytes:
            found = coded(scaled, math.inf)
        elif all(_is_step(self.choices[i]) for i in scaled):
            cut = sum(count > 1 for count in self.counts)
            # Beside other codecs, every frame says which one is its own.
            beside += _GROUPED * cut + (len(specs) if fixed else 0)
            budget = Budget(target_bytes=self.target_bytes, overhead=beside)
            found = Controlled(budget, self._weights(scaled, specs, tensors)).encode(
                [specs[i] for i in scaled],
                [tensors[i] for i in scaled],
                [contexts[i] for i in scaled],
            )
        else:
            found = _within(lambda factor: coded(scaled, factor), length, beside, self.target_bytes)
        if length(found) > self.target_bytes:
            raise ConfigError(
                f"target_bytes is {self.target_bytes}; with this plan an update takes "
                f"{length(found)} bytes at the hardest"
            )
        return everything(found)

    def _is_scaled(self, index: int) -> bool:
        return is_dialled(self.choices[index]) and not (self.kept and self.kept[index])

    def _weights(
        self,
        scaled: Sequence[int],
        specs: Sequence[TensorSpec],
        tensors: Sequence[NDArray[Any]],
    ) -> tuple[tuple[str, float], ...]:
        """Return weights that keep the proportions of the steps: step ~ 1 / sqrt(weight)."""
        steps: dict[int, float] = {}
        for i in scaled:
            choice = self.choices[i]
            assert isinstance(choice, RateDistortionBudget)
            steps[i] = choice.step or 1.0
            if choice.relative is not None:
                # Over all tensors that share the preset, as it does without a budget.
                alike = [i] if choice.scope == "tensor" else self._alike(i, scaled)
                energy = sum(squares(tensors[j].reshape(-1)) for j in alike)
                size = sum(specs[j].size for j in alike)
                steps[i] = choice.relative * math.sqrt(energy / size) if size else 0.0
            steps[i] /= math.sqrt(choice.weight)
        usual = [math.log(step) for step in steps.values() if 0 < step < math.inf]
        middle = math.exp(sum(usual) / len(usual)) if usual else 1.0
        return tuple(
            (specs[i].name, (middle / step) ** 2 if 0 < step < math.inf else 1.0)
            for i, step in steps.items()
        )

    def _alike(self, index: int, scaled: Sequence[int]) -> list[int]:
        return [j for j in scaled if self.choices[j] == self.choices[index]]


def is_dialled(choice: Preset) -> bool:
    """Whether the codec has a step or a density to be scaled."""
    if isinstance(choice, RateDistortionBudget):
        return choice.max_nmse is None and choice.target_bytes is None
    return _density(choice) is not None


def harder(choice: Preset, factor: float) -> Preset:
    """Return the codec with its step multiplied, or its density divided, by ``factor``.

    Densities stay between the smallest positive number and 1. Without a step or a density, or with
    a factor of 1, it is the same codec.
    """
    if factor == 1 or not is_dialled(choice):
        return choice
    if isinstance(choice, RateDistortionBudget):
        step, relative = choice.step, choice.relative
        if step is None and relative is None:
            relative = 1.0
        return replace(
            choice,
            step=None if step is None else _step(step * factor),
            relative=None if relative is None else _step(relative * factor),
        )
    density = _density(choice)
    assert density is not None
    fields: dict[str, Any] = {"density": min(1.0, max(density / factor, 1e-12))}
    return dataclasses.replace(choice, **fields)  # type: ignore[type-var]


def harder_text(text: str, factor: float) -> str:
    """Return ``harder`` of the codec that ``text`` names, as text again."""
    choice = preset(text)
    scaled = harder(choice, factor)
    if scaled == choice:
        return text
    fields = dataclasses.fields(scaled)  # type: ignore[arg-type]
    values = ((field, getattr(scaled, field.name)) for field in fields)
    said = (f"{f.name}={_written(value)}" for f, value in values if value != f.default)
    return f"{parse_call(text)[0]}({','.join(said)})"


def _written(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _density(choice: Preset) -> float | None:
    value = vars(choice).get("density")
    return value if isinstance(value, float) else None


def _is_step(choice: Preset) -> bool:
    return isinstance(choice, RateDistortionBudget) and not choice.fast


def _step(value: float) -> float:
    return min(max(value, 1e-30), 1e38)


def _within(
    coded: _Coding, length_of: Callable[[Sequence[Coded]], int], beside: int, target: int
) -> list[Coded]:
    """Return ``coded(factor)`` with a factor such that everything takes at most ``target`` bytes.

    Bytes fall with the factor, roughly in proportion. If even an infinite one leaves too many,
    that is what is returned.
    """
    best: list[Coded] | None = None
    most = last = -1
    low, high = 0.0, math.inf  # the largest factor known to be too small, the smallest that fits
    factor = 1.0
    same = False
    for _ in range(_MOST_PASSES):
        found = coded(factor)
        length = length_of(found)
        if length <= target:
            high = min(high, factor)
            if length > most:
                best, most = found, length
            if length >= target * (1 - _TOLERANCE):
                break
        else:
            low = max(low, factor)
        ratio = max(length - beside, 1) / max(target * _AIM - beside, 1)
        if length == last and not (low and high < math.inf):
            if same:
                break  # everything is sent, or nothing more can be left out
            same, ratio = True, _FARTHEST if length > target else 1 / _FARTHEST
        else:
            same = False
        last = length
        step = factor * min(max(ratio, 1 / _FARTHEST), _FARTHEST)
        if not low < step < high:
            step = math.sqrt(low * high) if low and high < math.inf else (low or high / _FARTHEST)
            step = step * _FARTHEST if high == math.inf else step
        if high / max(low, 1e-300) < 1 + 1e-9:
            break
        factor = step
    return coded(math.inf) if best is None else best
