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
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression import Manifest, TensorSpec
from flowerpress.compression.errors import ConfigError, UnknownNameError
from flowerpress.compression.grouped import MOST_GROUPS
from flowerpress.compression.rates.points import Points
from flowerpress.simulations.config import SimulationConfig
from flowerpress.simulations.loaded import load
from flowerpress.simulations.tuning.class_weights import example_weights, read_class_weights
from flowerpress.simulations.tuning.coding import Coding
from flowerpress.simulations.tuning.fisher import Fisher
from flowerpress.simulations.tuning.menus import read_menu
from flowerpress.simulations.tuning.parts import groups_of, parts_of
from flowerpress.simulations.tuning.profile import Profile
from flowerpress.simulations.tuning.stages import NothingMeasuredError, Stages, Tell
from flowerpress.simulations.tuning.surroundings import versions
from flowerpress.simulations.tuning.time_budget import TimeBudget
from flowerpress.simulations.tuning.trials import Trials
from flowerpress.simulations.tuning.updates import Federation

__all__ = ["ASKED", "Profiling", "Wanted"]

ASKED = ("fisher", "loss", "both", "none")

# Fractions of the time budget at which a stage has had its share, with all before it.
_TRAINING, _MENU, _GRADIENTS, _LOSS, _OTHERS, _INTERACTION = 0.4, 0.75, 0.8, 0.85, 0.9, 0.95


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
    """One measurement; ``run`` does all of it."""

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
        self.budget = budget or TimeBudget()
        self._stages = Stages(self.budget, tell)
        self._settings = read_menu(wanted.menu)
        self._loaded = load(config)
        classes = self._loaded.data.classes
        self._class_weights = read_class_weights(wanted.class_weights, classes)
        example_weights(self._loaded.data.train.take(np.arange(1)), self._class_weights)
        self._federation = Federation(self._loaded, wanted.clients)
        specs = self._federation.manifest.specs
        floats = [TensorSpec(spec.name, spec.shape) for spec in specs if spec.is_float]
        self._floats = Manifest(tuple(floats))
        self._groups = groups_of(floats, wanted.groups)
        self._parts = parts_of(floats, self._groups)
        self._facts: dict[str, float] = {}

    def run(self, command: str = "") -> Profile:
        """Measure and return the profile.

        Raises:
            NothingMeasuredError: stopped before there was anything to keep.
            ConfigError: training diverged.
        """
        wants_fisher = self.wanted.sensitivity in ("fisher", "both")
        wants_loss = self.wanted.sensitivity in ("loss", "both")
        federation, seed = self._federation, self._loaded.config.seed
        self._train()
        coding = Coding(self._stages, self._floats, self._groups, federation.updates, seed)
        points = coding.first(self._settings, _MENU if wants_fisher or wants_loss else 1.0)
        fisher = self._gradients() if wants_fisher else None
        trials = Trials(self._stages, self._parts, federation.before, federation.mean(), seed)
        if wants_loss:
            samples, model = federation.held_out, federation.model
            trials.begin(self._loaded.task, model, samples, self._class_weights)
        if trials.judge is not None:
            self._facts |= {"loss_examples": trials.judge.examples, "loss": trials.judge.loss}
            trials.compress(points, 0, _LOSS)
        averaged, self._facts["updates"] = coding.others(points, self.wanted.updates, _OTHERS)
        if trials.judge is not None:
            # With the points of before: what is compared was compressed at their settings.
            trials.compress(points, 0, _INTERACTION)
            trials.interact(points, _INTERACTION)
            trials.compress(points, 1, 1.0)
            trials.end()
        return self._profile(averaged, fisher, trials, command)

    def _train(self) -> None:
        federation = self._federation
        steps = [
            (number, client)
            for number in range(1, self.wanted.rounds + 1)
            for client in federation.order(number)
        ]

        def one(step: tuple[int, int]) -> None:
            federation.train(*step)

        done = self._stages.each("training", steps, one, until=_TRAINING, always=1)
        if not done:
            raise NothingMeasuredError
        if done < len(steps):
            self._stages.skipped.append(
                f"training: {done} of {len(steps)} times that a client was to train"
            )
        self._facts |= {"rounds": federation.round, "clients": done}

    def _gradients(self) -> NDArray[np.float64] | None:
        """Return the mean squared gradient of an element of each part; None without examples."""
        federation, train = self._federation, self._loaded.data.train
        federation.model.load_state_dict(federation.mean())
        fisher = Fisher(self._loaded.task, federation.model, self._parts)
        rng = np.random.default_rng((self._loaded.config.seed, 2))
        chosen = rng.permutation(len(train))[: self.wanted.examples].astype(np.int64)
        samples = train.take(chosen)
        weights = example_weights(samples, self._class_weights)

        def one(at: int) -> None:
            fisher.add(samples.take(np.array([at])), float(weights[at]))

        done = self._stages.each("gradients", range(len(samples)), one, until=_GRADIENTS)
        if done < len(samples):
            self._stages.skipped.append(f"gradients: of {done} of {len(samples)} examples")
        self._facts["fisher_examples"] = fisher.examples
        means = fisher.squared_gradients()
        if not means:
            return None
        return np.array([means.get(part.name, np.nan) for part in self._parts])

    def _profile(
        self, points: Points, fisher: NDArray[np.float64] | None, trials: Trials, command: str
    ) -> Profile:
        names, weights = self._loaded.data.classes, self._class_weights
        has_loss = bool(np.isfinite(trials.changes).any())
        if self.budget.stopped:
            self._stages.skipped.append("what came after Ctrl-C")
        return Profile(
            manifest=self._federation.manifest,
            points=points,
            menu=self.wanted.menu,
            fisher=fisher,
            loss_changes=trials.changes if has_loss else None,
            loss_errors=trials.errors if has_loss else None,
            interactions=tuple(trials.interactions),
            class_weights={
                name: float(each) for name, each in zip(names, weights, strict=True) if each != 1
            },
            facts={**self._facts, "seconds": self.budget.spent},
            skipped=tuple(self._stages.skipped),
            config=json.loads(self._loaded.config.to_json()),
            versions=versions(),
            command=command,
        )
