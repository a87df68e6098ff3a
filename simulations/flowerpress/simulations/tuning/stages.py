"""Stages of a measurement: steps that are taken while there is time, with a word to who waits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from flowerpress.simulations.engines.errors import StoppedError
from flowerpress.simulations.tuning.time_budget import TimeBudget

__all__ = ["NothingMeasuredError", "Stages", "Tell"]

T = TypeVar("T")
Tell = Callable[[str, int, int], None]
"""Called with a stage's name, its steps done, and all of its steps."""


class NothingMeasuredError(StoppedError):
    """The user stopped a measurement (Ctrl-C) before there was anything to keep."""

    def __init__(self) -> None:
        super().__init__(Path())
        self.args = ("stopped before anything was measured",)


class Stages:
    """Takes steps as long as ``budget`` allows; ``skipped`` says in words what it did not."""

    def __init__(self, budget: TimeBudget, tell: Tell) -> None:
        self.budget = budget
        self.tell = tell
        self.skipped: list[str] = []

    def each(
        self,
        stage: str,
        items: Sequence[T],
        step: Callable[[T], None],
        *,
        until: float = 1.0,
        always: int = 0,
    ) -> int:
        """Take a step for each item while there is time; return how many were taken.

        Args:
            stage: its name; empty where the steps themselves tell how far they are.
            items: what to take steps for, in the order of what they are worth.
            step: takes one. One that Ctrl-C breaks off does not count.
            until: the fraction of the time budget that this stage and all before it may use.
            always: so many steps are taken whatever the clock says, but not after Ctrl-C.
        """
        last = 0.0
        done = 0
        with self.budget.stoppable():
            for at, item in enumerate(items):
                if stage:
                    self.tell(stage, at, len(items))
                in_time = at < always or self.budget.allows(last, until=until)
                if self.budget.stopped or not in_time:
                    return done
                began = self.budget.spent
                step(item)
                done += 1
                last = self.budget.spent - began
            if stage:
                self.tell(stage, len(items), len(items))
        return done
