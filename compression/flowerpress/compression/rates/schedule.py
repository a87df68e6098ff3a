"""How the budget of bytes changes over a run: ramps, phases, warm-up, and Accordion's switch.

A ``Schedule`` says by how much the budget of one round is multiplied. Its three parts multiply:

- the *course* (``kind``): ``constant`` is 1 in every round; ``cubic`` goes from ``start`` to
  ``end`` along a cubic; ``phase`` falls along a straight line from ``early`` to ``2 - early``, so
  that early rounds are coded gently, later ones harder, and the run as a whole sends as much;
- *warm-up*: the first ``warmup`` rounds get more, falling to the course by equal ratios;
- *Accordion's switch*: ``gentle_factor`` times as much while the norm of the global change jumps.

Warm-up and the switch cost bytes on top of the course. Everything here is a pure function of the
round's number and of earlier norms; nothing is kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from flowerpress.compression.errors import ConfigError, UnknownNameError

__all__ = ["KINDS", "Schedule", "accordion_is_gentle", "cubic"]

KINDS = ("constant", "cubic", "phase")

_FACTOR = (0.01, 100.0)
"""What any one factor may be."""

_LONGEST = 1_000_000
"""Rounds; more than any run has."""


def cubic(round: int, start: float, end: float, first: int, rounds: int) -> float:  # noqa: A002
    """Return ``end + (start - end) (1 - (round - first) / rounds)^3``.

    The ramp of Zhu & Gupta 2017, "To prune, or not to prune", equation 1, with ``rounds`` for their
    n times delta t: steep at first, level at last. Before round ``first`` it is ``start``, from
    round ``first + rounds`` on it is ``end``.

    Raises:
        ConfigError: fewer than one round.
    """
    if rounds < 1:
        raise ConfigError(f"a cubic ramp takes at least 1 round, not {rounds}")
    left = 1.0 - min(max((round - first) / rounds, 0.0), 1.0)
    return end + (start - end) * left**3


def accordion_is_gentle(norms: Sequence[float], threshold: float = 0.5) -> bool:
    """Tell whether the last norm differs from the one before by ``threshold`` of it, or more.

    Agarwal et al. 2021, "Accordion: Adaptive Gradient Compression via Learning Critical Regime
    Identification" (MLSys), section 4: such a round belongs to a critical regime, in which what
    compression loses is not made up for later. A drop counts like a rise. A run begins in one: so
    it is gentle with fewer than two norms, and where a norm is not finite.
    """
    if len(norms) < 2:
        return True
    before, last = norms[-2], norms[-1]
    if not (math.isfinite(before) and math.isfinite(last)):
        return True
    # Without a division, so that a change from nothing to something counts as a jump.
    return abs(last - before) >= threshold * abs(before) and last != before


@dataclass(frozen=True)
class Schedule:
    """By how much the byte budget of a round is multiplied; the fields are the keys of the TOML.

    Attributes:
        kind: the course, one of ``KINDS``.
        start: ``cubic``: the factor before round ``first`` and in it.
        end: ``cubic``: the factor from round ``first + length`` on.
        first: ``cubic``: where the ramp begins; rounds count from 1.
        length: ``cubic``: how many rounds the ramp takes; 0: up to the run's last round.
        early: ``phase``: the factor of the first round, from 1 to 1.99; the last one has what is
            missing to 2, and the mean over the run is 1. Gentle early, harder later is one of the
            two ideas of LEGACY (ICLR 2026); the straight line is ours.
        warmup: in how many rounds at the beginning more is sent; 0: none.
        warmup_factor: how many times as much in round 1. It falls by equal ratios, as in Lin et
            al. 2018, "Deep Gradient Compression" (ICLR), section 3.3, and is 1 after ``warmup``.
        accordion: whether to switch.
        gentle_factor: how many times as much while the norm changes by ``threshold``.
        threshold: which relative change of the norm counts, above 0 and at most 100.

    Raises:
        ConfigError: a field has a value that it may not have; the message names it.
    """

    kind: str = "constant"
    start: float = 4.0
    end: float = 1.0
    first: int = 1
    length: int = 0
    early: float = 1.5
    warmup: int = 0
    warmup_factor: float = 4.0
    accordion: bool = False
    gentle_factor: float = 4.0
    threshold: float = 0.5

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UnknownNameError("kind of schedule", str(self.kind), KINDS)
        for name in ("start", "end", "warmup_factor", "gentle_factor"):
            _check_number(name, getattr(self, name), *_FACTOR)
        _check_number("early", self.early, 1.0, 1.99)
        _check_number("threshold", self.threshold, 1e-6, 100.0)
        for name, least in (("first", 1), ("length", 0), ("warmup", 0)):
            number = getattr(self, name)
            if isinstance(number, bool) or not isinstance(number, int):
                raise ConfigError(f"{name} of the schedule is {number!r}; it must be an integer")
            if not least <= number <= _LONGEST:
                raise ConfigError(
                    f"{name} of the schedule is {number}; it must be from {least} to {_LONGEST}"
                )
        if not isinstance(self.accordion, bool):
            raise ConfigError(
                f"accordion of the schedule is {self.accordion!r}; it must be true or false"
            )

    @classmethod
    def parse(cls, table: Mapping[str, Any], where: str = "schedule") -> Schedule:
        """Read a TOML table; ``where`` begins the messages.

        A key that the chosen kind has no use for is refused rather than ignored.

        Raises:
            UnknownNameError: a key that does not exist, or an unknown kind; the nearest is named.
            ConfigError: no table, a value out of range, or a key of another kind.
        """
        if not isinstance(table, Mapping):
            raise ConfigError(f"{where}: must be a table such as [schedule] with kind = 'phase'")
        known = [field.name for field in fields(cls)]
        for key in table:
            if key not in known:
                raise UnknownNameError(f"key of [{where}]", str(key), known)
        try:
            made = cls(**table)
        except UnknownNameError:
            raise
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None
        for key in table:
            needs = _NEEDS.get(key)
            if needs and not needs[1](made):
                raise ConfigError(f"{where}: {key} is only used with {needs[0]}; set that, too")
        return made

    def factor(self, round: int, rounds: int, norms: Sequence[float] = ()) -> float:  # noqa: A002
        """Return by how much the budget of ``round`` is multiplied: finite, within ``bounds``.

        Args:
            round: from 1; later than ``rounds`` counts as the last, earlier than 1 as the first.
            rounds: how many the run has, at least 1.
            norms: of the global change of earlier rounds, the latest last.

        Raises:
            ConfigError: a run without rounds.
        """
        if rounds < 1:
            raise ConfigError(f"a schedule is for a run of at least 1 round, not {rounds}")
        at = min(max(round, 1), rounds)
        value = self._course(at, rounds)
        if at <= self.warmup:
            value *= self.warmup_factor ** (1.0 - (at - 1) / self.warmup)
        if self.accordion and accordion_is_gentle(norms, self.threshold):
            value *= self.gentle_factor
        low, high = self.bounds
        return min(max(value, low), high)

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the largest ``factor``, whatever the round and the norms."""
        low, high = {
            "constant": (1.0, 1.0),
            "cubic": (min(self.start, self.end), max(self.start, self.end)),
            "phase": (2.0 - self.early, self.early),
        }[self.kind]
        more = [self.warmup_factor] * (self.warmup > 0) + [self.gentle_factor] * self.accordion
        for other in more:
            low, high = low * min(other, 1.0), high * max(other, 1.0)
        return low, high

    def _course(self, at: int, rounds: int) -> float:
        if self.kind == "cubic":
            length = self.length or max(rounds - self.first, 1)
            return cubic(at, self.start, self.end, self.first, length)
        if self.kind == "phase" and rounds > 1:
            # Point-symmetric about the middle: a round and its mirror image sum to exactly 2.
            return 1.0 + (self.early - 1.0) * ((rounds + 1 - 2 * at) / (rounds - 1))
        return 1.0


_NEEDS: dict[str, tuple[str, Callable[[Schedule], bool]]] = {
    **dict.fromkeys(
        ("start", "end", "first", "length"), ("kind = 'cubic'", lambda s: s.kind == "cubic")
    ),
    "early": ("kind = 'phase'", lambda s: s.kind == "phase"),
    "warmup_factor": ("warmup above 0", lambda s: s.warmup > 0),
    **dict.fromkeys(("gentle_factor", "threshold"), ("accordion = true", lambda s: s.accordion)),
}
"""Key -> what must be set for it to have a meaning."""


def _check_number(name: str, value: object, low: float, high: float) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not low <= value <= high:  # type: ignore[operator]
        raise ConfigError(
            f"{name} of the schedule is {value!r}; it must be a number from {low:g} to {high:g}"
        )
