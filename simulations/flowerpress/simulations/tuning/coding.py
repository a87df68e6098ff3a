"""The points of real updates: one client's first, in case there is no time for more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from flowerpress.compression import Manifest
from flowerpress.compression.rates.menu import measure
from flowerpress.compression.rates.points import Points, mean
from flowerpress.simulations.tuning.menus import spread_order
from flowerpress.simulations.tuning.stages import NothingMeasuredError, Stages
from flowerpress.simulations.tuning.updates import Update

__all__ = ["Coding"]

_CHUNK = 5
"""Settings between two looks at the clock. What one of them finds out about a tensor serves the
others, so fewer at a time would take longer altogether."""


class Coding:
    """Codes updates with the settings of a menu."""

    def __init__(
        self,
        stages: Stages,
        floats: Manifest,
        groups: Mapping[str, int],
        updates: Sequence[Update],
        seed: int,
    ) -> None:
        """``floats``: the floating-point tensors; ``groups``: blocks of rows by tensor."""
        self._stages = stages
        self._floats = floats
        self._groups = groups
        self._updates = updates
        self._seed = seed

    def first(self, settings: Sequence[str], until: float) -> Points:
        """Return the points of the first update; of a part of the settings if time is short.

        Raises:
            NothingMeasuredError: stopped before there were any.
        """
        found: list[int] = []
        parts: list[Points] = []

        def some(chunk: list[int]) -> None:
            part = self._measure(0, [settings[at] for at in chunk], "menu", len(found), settings)
            parts.append(part)
            found.extend(chunk)

        order = spread_order(len(settings))
        size = len(order) if self._stages.budget.seconds is None else _CHUNK
        chunks = [order[at : at + size] for at in range(0, len(order), size)]
        self._stages.each("", chunks, some, until=until, always=1)
        if not parts:
            raise NothingMeasuredError
        if len(found) < len(order):
            left = [text for at, text in enumerate(settings) if at not in found]
            self._stages.skipped.append(
                f"menu: {len(left)} of {len(order)} settings: {', '.join(left)}"
            )
        return _in_order(parts, settings)

    def others(self, first: Points, count: int, until: float) -> tuple[Points, int]:
        """Return the means over at most ``count`` updates, and over how many they are.

        ``first``: the points of the first update; the others are coded with the same settings.
        """
        parts = [first]
        rest = list(range(1, min(count, len(self._updates))))

        def one(at: int) -> None:
            settings = first.settings
            parts.append(self._measure(at, settings, "other clients", 0, settings))

        done = self._stages.each("", rest, one, until=until)
        if done < len(rest):
            self._stages.skipped.append(
                f"points: means over {1 + done} of {1 + len(rest)} clients' updates"
            )
        return mean(parts), len(parts)

    def _measure(
        self, at: int, settings: Sequence[str], stage: str, before: int, every: Sequence[str]
    ) -> Points:
        """Code one update. For who waits: ``before`` of ``every`` setting were done by then."""
        rng = np.random.default_rng((self._seed, 1, at, before))

        def told(done: int, points: int) -> None:
            rows = points // len(settings)
            self._stages.tell(stage, before * rows + done, len(every) * rows)

        tensors = self._updates[at].tensors
        return measure(self._floats, tensors, settings, rng=rng, groups=self._groups, progress=told)


def _in_order(parts: Sequence[Points], settings: Sequence[str]) -> Points:
    """Put points of the same tensors side by side, their settings in the order of ``settings``."""
    first = parts[0]
    have = [text for part in parts for text in part.settings]
    order = [have.index(text) for text in settings if text in have]
    return Points(
        first.names,
        tuple(have[at] for at in order),
        np.concatenate([part.bytes for part in parts], axis=1)[:, order],
        np.concatenate([part.errors for part in parts], axis=1)[:, order],
        first.energies,
        first.sizes,
    )
