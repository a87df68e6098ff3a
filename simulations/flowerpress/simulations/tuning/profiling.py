"""Measuring a profile: stages in the order of what they are worth, each as far as the time goes.

1. Train a few clients for a few rounds; the last round's updates are what is measured.
2. Code the first update with every setting of the menu, far apart settings first.
3. The squared gradients of some examples.
4. The loss change of each tensor alone, compressed coarsely.
5. Code the other updates; the points become means over clients.
6. The loss change again, compressed less, and of several tensors at once.

What was skipped or cut short is in ``Profile.skipped``. Ctrl-C ends the stages and keeps the rest.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression import PRESETS, EncodeError, Manifest, TensorSpec
from flowerpress.compression.errors import ConfigError, UnknownNameError
from flowerpress.compression.grouped import MOST_GROUPS
from flowerpress.compression.rates.menu import MENUS, measure, menu
from flowerpress.compression.rates.points import Points, mean
from flowerpress.simulations.config import SimulationConfig
from flowerpress.simulations.engines.errors import EngineError
from flowerpress.simulations.loaded import load
from flowerpress.simulations.tuning.class_weights import example_weights, read_class_weights
from flowerpress.simulations.tuning.fisher import Fisher
from flowerpress.simulations.tuning.loss_change import LossChange, coding_error
from flowerpress.simulations.tuning.parts import groups_of, parts_of
from flowerpress.simulations.tuning.profile import Interaction, Profile
from flowerpress.simulations.tuning.surroundings import versions
from flowerpress.simulations.tuning.time_budget import TimeBudget
from flowerpress.simulations.tuning.updates import Federation

__all__ = ["ASKED", "Profiling", "Wanted", "spread_order"]

T = TypeVar("T")
Tell = Callable[[str, int, int], None]

ASKED = ("fisher", "loss", "both", "none")

_CHUNK = 5
_PAIRS = 3
_TRIALS = (0.3, 0.05)
"""NMSE at which tensors are compressed alone: much, so that the loss shows it, then less."""

_FEWEST_EXAMPLES = 250


@dataclass(frozen=True)
class Wanted:
    """What to measure, and how much of it at most.

    Attributes:
        menu: a name of a menu, or codec texts separated by commas.
        sensitivity: one of ``ASKED``.
        class_weights: such as ``"3=5,8=2"``.
        rounds: of training before the updates that are measured, those included.
        clients: that train in a round.
        updates: that are measured; the points are means over them.
        examples: whose gradients are squared.
        groups: blocks of rows into which a tensor is cut that holds most of the model; 0: none.

    Raises:
        UnknownNameError: no such sensitivity.
        ConfigError: a count below 1.
    """

    menu: str = "rd"
    sensitivity: str = "both"
    class_weights: str | None = None
    rounds: int = 2
    clients: int = 10
    updates: int = 3
    examples: int = 512
    groups: int = 0

    def __post_init__(self) -> None:
        if self.sensitivity not in ASKED:
            raise UnknownNameError("sensitivity", self.sensitivity, ASKED)
        for name in ("rounds", "clients", "updates", "examples"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not 0 <= self.groups <= MOST_GROUPS:
            raise ConfigError(f"groups is {self.groups}; it must be from 0 to {MOST_GROUPS}")


class Profiling:
    """One measurement. ``run`` does all of it; afterwards ``skipped`` says what was left out."""

    def __init__(
        self,
        config: SimulationConfig,
        wanted: Wanted,
        budget: TimeBudget | None = None,
        tell: Tell = lambda stage, done, total: None,
    ) -> None:
        """``tell`` is called with a stage's name, its steps done and all of its steps.

        Raises:
            ConfigError: task, data, partition, menu or class weights cannot be used.
        """
        self.wanted = wanted
        self.settings = menu(_texts(wanted.menu))
        self.budget = budget or TimeBudget()
        self.skipped: list[str] = []
        self._tell = tell
        self._loaded = load(config)
        classes = self._loaded.data.classes
        self._class_weights = read_class_weights(wanted.class_weights, classes)
        example_weights(self._loaded.data.train.take(np.arange(1)), self._class_weights)
        self._federation = Federation(self._loaded, wanted.clients)
        specs = self._federation.manifest.specs
        floats = [TensorSpec(spec.name, spec.shape) for spec in specs if spec.is_float]
        self._floats = Manifest(tuple(floats))
        self._shapes = {spec.name: spec.shape for spec in floats}
        self._groups = groups_of(floats, wanted.groups)
        self._parts = parts_of(floats, self._groups)
        self._points: Points | None = None
        self._measured = 0
        self._fisher: NDArray[np.float64] | None = None
        self._changes = np.full((len(self._parts), len(_TRIALS)), np.nan)
        self._errors = np.full_like(self._changes, np.nan)
        self._interactions: list[Interaction] = []
        self._facts: dict[str, float] = {}

    def run(self, command: str = "") -> Profile:
        """Measure and return the profile.

        Raises:
            EngineError: stopped before there was anything to keep.
            ConfigError: training diverged.
        """
        wants_fisher = self.wanted.sensitivity in ("fisher", "both")
        wants_loss = self.wanted.sensitivity in ("loss", "both")
        self._train()
        self._measure_first(until=0.75 if wants_fisher or wants_loss else 1.0)
        if wants_fisher:
            self._measure_fisher()
        change = self._held_out() if wants_loss else None
        if change is not None:
            self._trial(change, 0)
        self._measure_others()
        if change is not None:
            self._interact(change)
            self._trial(change, 1)
        return self._profile(command)

    def _train(self) -> None:
        federation = self._federation
        steps = [
            (number, client)
            for number in range(1, self.wanted.rounds + 1)
            for client in federation.order(number)
        ]
        done = self._each(
            "training", steps, lambda step: federation.train(*step), until=0.4, always=1
        )
        if done < len(steps):
            self.skipped.append(f"training: {done} of {len(steps)} clients' rounds")
        self._facts |= {"rounds": federation.round, "clients": done}

    def _measure_first(self, until: float) -> None:
        if not self._federation.updates:
            raise EngineError("stopped before anything was measured")
        found: list[int] = []
        parts: list[Points] = []

        def some(chunk: list[int]) -> None:
            part = self._measure(0, chunk, "menu", len(found))
            parts.append(part)
            found.extend(chunk)

        order = spread_order(len(self.settings))
        # What one setting finds out about a tensor serves the next: chunks, as the clock permits.
        size = _CHUNK if self.budget.seconds is not None else len(order)
        chunks = [order[at : at + size] for at in range(0, len(order), size)]
        self._each("", chunks, some, until=until, always=1)
        if not found:
            raise EngineError("stopped before anything was measured")
        if len(found) < len(order):
            left = [text for at, text in enumerate(self.settings) if at not in found]
            self.skipped.append(f"menu: {len(left)} of {len(order)} settings: {', '.join(left)}")
        joined = _side_by_side(parts)
        kept = sorted(found)
        self._points = _columns(joined, [found.index(at) for at in kept])
        self.settings = self._points.settings
        self._measured = 1

    def _measure_others(self) -> None:
        parts = [self._got()]
        others = list(range(1, min(self.wanted.updates, len(self._federation.updates))))

        def one(at: int) -> None:
            parts.append(self._measure(at, list(range(len(self.settings))), "other clients", 0))

        done = self._each("", others, one, until=0.9)
        if done < len(others):
            self.skipped.append(
                f"points: means over {1 + done} of {1 + len(others)} clients' updates"
            )
        self._points = mean(parts)
        self._measured = len(parts)

    def _measure(self, at: int, chunk: list[int], stage: str, before: int) -> Points:
        """Return the points of some settings for one update; ``before`` were done by then."""
        rng = np.random.default_rng((self._loaded.config.seed, 1, at, *chunk))
        tensors = self._federation.updates[at].tensors
        rows = len(self._parts)

        def told(done: int, _: int) -> None:
            self._tell(stage, before * rows + done, len(self.settings) * rows)

        settings = [self.settings[column] for column in chunk]
        return measure(self._floats, tensors, settings, rng=rng, groups=self._groups, progress=told)

    def _measure_fisher(self) -> None:
        federation, train = self._federation, self._loaded.data.train
        federation.model.load_state_dict(federation.mean())
        fisher = Fisher(self._loaded.task, federation.model, self._parts)
        rng = np.random.default_rng((self._loaded.config.seed, 2))
        chosen = rng.permutation(len(train))[: self.wanted.examples].astype(np.int64)
        samples = train.take(chosen)
        weights = example_weights(samples, self._class_weights)

        def one(at: int) -> None:
            fisher.add(samples.take(np.array([at])), float(weights[at]))

        done = self._each("gradients", range(len(samples)), one, until=0.8)
        if done < len(samples):
            self.skipped.append(f"gradients: of {done} of {len(samples)} examples")
        means = fisher.squared_gradients()
        if means:
            self._fisher = np.array([means.get(part.name, np.nan) for part in self._parts])
        self._facts["fisher_examples"] = fisher.examples

    def _held_out(self) -> LossChange | None:
        """Return the judge of loss changes, with as many examples as there is time for."""
        samples = self._federation.held_out
        model, state = self._federation.model, self._federation.mean()
        found: list[LossChange] = []
        few = np.arange(min(len(samples), _FEWEST_EXAMPLES))

        def start(count: int) -> None:
            part = samples.take(np.arange(count))
            task = self._loaded.task
            found.append(LossChange(task, model, state, part, self._class_weights))

        began = self.budget.spent
        self._each("held-out loss", [len(few)], start, until=0.95)
        if found and len(few) < len(samples):
            each = (self.budget.spent - began) / len(few)
            count = len(samples)
            if self.budget.seconds is not None and each > 0:
                # A quarter of the budget for a trial of every tensor.
                fitting = 0.25 * self.budget.seconds / (each * len(self._parts))
                count = int(min(max(fitting, len(few)), count))
            self._each("held-out loss", [count], start)
        if not found:
            self.skipped.append("loss changes: all of them")
            return None
        self._facts |= {"loss_examples": found[-1].examples, "loss": found[-1].loss}
        return found[-1]

    def _trial(self, change: LossChange, trial: int) -> None:
        points = self._got()
        chosen = _nearest(points, _TRIALS[trial])
        if trial:
            before = _nearest(points, _TRIALS[0])
            chosen = [None if at == old else at for at, old in zip(chosen, before, strict=True)]
        order = [int(at) for at in np.argsort(-points.energies, kind="stable")]
        order = [at for at in order if chosen[at] is not None]

        def one(at: int) -> None:
            error = self._error(at, chosen[at])
            if error is not None:
                squared = float(np.square(error, dtype=np.float64).sum())
                value = change.of({self._parts[at].tensor: self._spread(at, error)})
                self._changes[at, trial], self._errors[at, trial] = value, squared

        name = f"loss at NMSE {_TRIALS[trial]:g}"
        done = self._each(name, order, one, until=0.85 if trial == 0 else 1.0)
        if done < len(order):
            self.skipped.append(f"{name}: {done} of {len(order)} tensors")

    def _error(self, at: int, setting: int | None) -> NDArray[np.float32] | None:
        """Return the coding error of a tensor of the mean update, None where there is none."""
        if setting is None:
            return None
        federation, part = self._federation, self._parts[at]
        after, before = federation.mean()[part.tensor], federation.before[part.tensor]
        change = np.ascontiguousarray(part.of((after.double() - before.double()).float().numpy()))
        rng = np.random.default_rng((self._loaded.config.seed, 3, at, setting))
        try:
            return coding_error(part.spec, change, self.settings[setting], rng)
        except EncodeError:
            return None

    def _spread(self, at: int, error: NDArray[np.float32]) -> NDArray[np.float32]:
        part = self._parts[at]
        return part.spread(error, self._shapes[part.tensor])

    def _interact(self, change: LossChange) -> None:
        """Compress several tensors at once, and compare with the sum of what each did alone."""
        chosen = _nearest(self._got(), _TRIALS[0])
        known = [int(at) for at in np.flatnonzero(np.isfinite(self._changes[:, 0]))]
        if len(known) < 2:
            return
        rng = np.random.default_rng((self._loaded.config.seed, 4))
        groups = [known]
        while len(known) > 2 and len(groups) <= _PAIRS:
            groups.append(sorted(int(at) for at in rng.choice(known, 2, replace=False)))

        def one(group: list[int]) -> None:
            errors: dict[str, NDArray[np.float32]] = {}
            for at in group:
                error = self._error(at, chosen[at])
                if error is not None:
                    name, whole = self._parts[at].tensor, self._spread(at, error)
                    errors[name] = errors[name] + whole if name in errors else whole
            together = change.of(errors)
            apart = float(self._changes[group, 0].sum())
            if np.isfinite(together):
                names = tuple(self._parts[at].name for at in group)
                self._interactions.append(Interaction(names, together, apart))

        done = self._each("interaction", groups, one, until=0.95)
        if done < len(groups):
            self.skipped.append(f"interaction: {done} of {len(groups)} groups of tensors")

    def _each(
        self,
        stage: str,
        items: Sequence[T],
        step: Callable[[T], None],
        *,
        until: float = 1.0,
        always: int = 0,
    ) -> int:
        """Take a step for each item while there is time; return how many were taken.

        The first ``always`` steps are taken in any case, but not after Ctrl-C. Without a name of
        the stage, the step itself tells how far it is.
        """
        last = 0.0
        for at, item in enumerate(items):
            if stage:
                self._tell(stage, at, len(items))
            if self.budget.stopped:
                return at
            if at >= always and not self.budget.allows(last, until=until):
                return at
            began = self.budget.spent
            with self.budget.stoppable():
                step(item)
            if self.budget.stopped:
                return at
            last = self.budget.spent - began
        if stage:
            self._tell(stage, len(items), len(items))
        return len(items)

    def _got(self) -> Points:
        assert self._points is not None  # the first stages end with points or with an error
        return self._points

    def _profile(self, command: str) -> Profile:
        names = self._loaded.data.classes
        weights = self._class_weights
        has_loss = bool(np.isfinite(self._changes).any())
        if self.budget.stopped:
            self.skipped.append("what came after Ctrl-C")
        return Profile(
            manifest=self._federation.manifest,
            points=self._got(),
            menu=self.wanted.menu,
            fisher=self._fisher,
            loss_changes=self._changes if has_loss else None,
            loss_errors=self._errors if has_loss else None,
            interactions=tuple(self._interactions),
            class_weights={
                name: float(each) for name, each in zip(names, weights, strict=True) if each != 1
            },
            facts={**self._facts, "updates": self._measured, "seconds": self.budget.spent},
            skipped=tuple(self.skipped),
            config=json.loads(self._loaded.config.to_json()),
            versions=versions(),
            command=command,
        )


def spread_order(count: int) -> list[int]:
    """Return 0 .. count - 1 so that each beginning of it covers the range: ends, middle, quarters.

    Whatever the time suffices for is then a coarser menu, and not one without an end.
    """
    order = [0, count - 1] if count > 1 else list(range(count))
    step = count - 1
    while len(order) < count:
        step = (step + 1) // 2
        for at in range(0, count, step):
            if at not in order:
                order.append(at)
    return order


def _nearest(points: Points, nmse: float) -> list[int | None]:
    """Return for each tensor the setting whose error is nearest to ``nmse``, by ratio."""
    chosen: list[int | None] = []
    for errors, energy in zip(points.errors, points.energies, strict=True):
        usable = np.isfinite(errors) & (errors > 0)
        if energy <= 0 or not usable.any():
            chosen.append(None)
            continue
        ratio = np.full(len(errors), np.inf)
        ratio[usable] = np.abs(np.log(errors[usable] / (nmse * energy)))
        chosen.append(int(ratio.argmin()))
    return chosen


def _side_by_side(columns: Sequence[Points]) -> Points:
    """Return one table of the points of the same tensors with other settings."""
    first = columns[0]
    return Points(
        first.names,
        tuple(text for each in columns for text in each.settings),
        np.concatenate([each.bytes for each in columns], axis=1),
        np.concatenate([each.errors for each in columns], axis=1),
        first.energies,
        first.sizes,
    )


def _columns(points: Points, order: list[int]) -> Points:
    """Return the points of the settings at ``order``."""
    return Points(
        points.names,
        tuple(points.settings[at] for at in order),
        points.bytes[:, order],
        points.errors[:, order],
        points.energies,
        points.sizes,
    )


def _texts(text: str) -> str | list[str]:
    """Return a menu's name as it is, and a list of codec texts as a list."""
    parts = split_codecs(text)
    alone = text.strip()
    return (
        alone
        if alone in MENUS or (len(parts) < 2 and alone not in PRESETS and "(" not in alone)
        else parts
    )


def split_codecs(text: str) -> list[str]:
    """Split at commas outside parentheses; empty parts are left out."""
    parts, depth, start = [], 0, 0
    for at, char in enumerate(f"{text},"):
        depth += (char == "(") - (char == ")")
        if char == "," and depth <= 0:
            parts.append(text[start:at].strip())
            start = at + 1
    parts.append(text[start:].strip())
    return [part for part in parts if part]
