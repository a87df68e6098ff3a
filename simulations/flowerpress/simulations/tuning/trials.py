"""One tensor compressed at a time, and what the loss says; then several at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import nn

from flowerpress.compression import EncodeError
from flowerpress.compression.rates.points import Points
from flowerpress.simulations.tasks import Samples, Task
from flowerpress.simulations.tuning.loss_change import LossChange, coding_error
from flowerpress.simulations.tuning.parts import Part
from flowerpress.simulations.tuning.profile import Interaction
from flowerpress.simulations.tuning.stages import Stages
from flowerpress.simulations.tuning.updates import State

__all__ = ["NMSE", "Trials"]

NMSE = (0.3, 0.05)
"""Errors at which tensors are compressed alone: much, so that the loss shows it, then less."""

_PAIRS = 3
_FEWEST_EXAMPLES = 250


class Trials:
    """Compresses parts of the mean update of a round, and asks the loss.

    ``changes`` and ``errors``: (T, K) float64, change of the loss and squared error of each part
    with each of the K errors of ``NMSE``; NaN where there was no trial.
    """

    def __init__(
        self, stages: Stages, parts: Sequence[Part], before: State, after: State, seed: int
    ) -> None:
        """``before``, ``after``: the model at the beginning and at the end of the round."""
        self._stages = stages
        self._parts = parts
        self._after = after
        self._seed = seed
        self._shapes = {part.tensor: tuple(after[part.tensor].shape) for part in parts}
        self._updates = {
            name: (after[name].double() - before[name].double()).float().numpy()
            for name in self._shapes
        }
        self.changes = np.full((len(parts), len(NMSE)), np.nan)
        self.errors = np.full_like(self.changes, np.nan)
        self.interactions: list[Interaction] = []
        self._judge: LossChange | None = None
        self._wanted = [0] * len(NMSE)
        self._tried: list[set[int]] = [set() for _ in NMSE]

    @property
    def judge(self) -> LossChange | None:
        """What asks the loss; None before ``begin``, or if there was no time for it."""
        return self._judge

    def begin(
        self, task: Task, model: nn.Module, samples: Samples, class_weights: NDArray[np.float64]
    ) -> None:
        """Take as many examples as there is time for: a quarter of it for a trial of all parts."""
        few = min(len(samples), _FEWEST_EXAMPLES)

        def start(count: int) -> None:
            part = samples.take(np.arange(count))
            self._judge = LossChange(task, model, self._after, part, class_weights)

        budget = self._stages.budget
        if budget.seconds is None:
            self._stages.each("held-out loss", [len(samples)], start)
            return
        began = budget.spent
        self._stages.each("held-out loss", [few], start, until=0.95)
        if self._judge is None:
            self._stages.skipped.append("loss changes: all of them")
            return
        each = (budget.spent - began) / few
        fitting = 0.25 * budget.seconds / (each * len(self._parts)) if each > 0 else len(samples)
        if fitting > few < len(samples):
            self._stages.each("held-out loss", [int(min(fitting, len(samples)))], start)

    def compress(self, points: Points, trial: int, until: float) -> None:
        """Compress each part alone, at the setting whose error is nearest to ``NMSE[trial]``.

        Those that were tried before are not tried again.
        """
        chosen = nearest(points, NMSE[trial])
        if trial:
            before = nearest(points, NMSE[0])
            chosen = [None if at == old else at for at, old in zip(chosen, before, strict=True)]
        order = [int(at) for at in np.argsort(-points.energies, kind="stable")]
        order = [at for at in order if chosen[at] is not None]
        self._wanted[trial] = len(order)
        order = [at for at in order if at not in self._tried[trial]]

        def one(at: int) -> None:
            error = self._error(points, at, chosen[at])
            if error is not None and self._judge is not None:
                change = self._judge.of({self._parts[at].tensor: error})
                self.changes[at, trial] = change
                self.errors[at, trial] = float(np.square(error, dtype=np.float64).sum())
            self._tried[trial].add(at)

        if order:
            self._stages.each(_stage(trial), order, one, until=until)

    def end(self) -> None:
        """Say which trials there was no time for."""
        for trial, wanted in enumerate(self._wanted):
            done = len(self._tried[trial])
            if done < wanted:
                self._stages.skipped.append(f"{_stage(trial)}: {done} of {wanted} tensors")

    def interact(self, points: Points, until: float) -> None:
        """Compress all parts at once, then some pairs; compare with the sums of each alone."""
        chosen = nearest(points, NMSE[0])
        known = [int(at) for at in np.flatnonzero(np.isfinite(self.changes[:, 0]))]
        if len(known) < 2:
            return
        rng = np.random.default_rng((self._seed, 4))
        groups = [known]
        while len(known) > 2 and len(groups) <= _PAIRS:
            groups.append(sorted(int(at) for at in rng.choice(known, 2, replace=False)))

        def one(group: list[int]) -> None:
            errors: dict[str, NDArray[np.float32]] = {}
            for at in group:
                error, name = self._error(points, at, chosen[at]), self._parts[at].tensor
                if error is not None:
                    errors[name] = errors[name] + error if name in errors else error
            together = np.nan if self._judge is None else self._judge.of(errors)
            if np.isfinite(together):
                names = tuple(self._parts[at].name for at in group)
                apart = float(self.changes[group, 0].sum())
                self.interactions.append(Interaction(names, float(together), apart))

        done = self._stages.each("interaction", groups, one, until=until)
        if done < len(groups):
            self._stages.skipped.append(f"interaction: {done} of {len(groups)} groups of tensors")

    def _error(self, points: Points, at: int, setting: int | None) -> NDArray[np.float32] | None:
        """Return the coding error of a part in the shape of its tensor; None if there is none."""
        if setting is None:
            return None
        part = self._parts[at]
        change = np.ascontiguousarray(part.of(self._updates[part.tensor]))
        rng = np.random.default_rng((self._seed, 3, at, setting))
        try:
            error = coding_error(part.spec, change, points.settings[setting], rng)
        except EncodeError:
            return None
        return part.spread(error, self._shapes[part.tensor])


def _stage(trial: int) -> str:
    return f"loss at NMSE {NMSE[trial]:g}"


def nearest(points: Points, nmse: float) -> list[int | None]:
    """Return for each row the setting whose error is nearest to ``nmse``, by ratio.

    None where nothing was lost with any setting, or there was nothing to lose.
    """
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
