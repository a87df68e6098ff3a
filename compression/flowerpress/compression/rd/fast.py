"""The fast mode: one step, no transform, no contexts; several times faster, and longer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.codec import Context
from flowerpress.compression.entropy import entropy
from flowerpress.compression.moments import squares
from flowerpress.compression.pipeline import Pipeline
from flowerpress.compression.plan import Coded, Joint
from flowerpress.compression.rd.control import Budget
from flowerpress.compression.rd.search import LARGEST_STEP, Try, bracket, settle
from flowerpress.compression.spec import TensorSpec
from flowerpress.compression.stages.uniform import SMALLEST_STEP, Uniform

__all__ = ["Fast", "fast_codec"]

_SAMPLE = 1 << 16


def fast_codec(step: float) -> Pipeline:
    """Return the codec: a dead zone, then order-0 rANS."""
    return Pipeline([Uniform(step)], "rans")


@dataclass(frozen=True)
class Fast(Joint):
    """Finds the step of an update for the fast mode."""

    budget: Budget

    def encode(
        self,
        specs: Sequence[TensorSpec],
        tensors: Sequence[NDArray[Any]],
        contexts: Sequence[Context],
    ) -> list[Coded]:
        """Return all tensors coded with one step."""

        def coded(step: float) -> list[Coded]:
            codec = fast_codec(min(max(step, SMALLEST_STEP), LARGEST_STEP))
            return [
                Coded(codec, codec.encode(x, spec, context))
                for x, spec, context in zip(tensors, specs, contexts, strict=True)
            ]

        if self.budget.step is not None:
            return coded(self.budget.step)
        energy = sum(squares(x.reshape(-1)) for x in tensors)
        size = sum(x.size for x in tensors)
        if not energy or not math.isfinite(energy):
            return coded(1.0)  # nothing to say, or an error that says what is wrong
        if self.budget.relative is not None:
            return coded(self.budget.relative * math.sqrt(energy / size))

        some = np.concatenate([x.reshape(-1)[:: max(1, size // _SAMPLE)] for x in tensors])
        some = some.astype(np.float64)
        bytes_wanted = self.budget.target_bytes is not None
        found: dict[float, list[Coded]] = {}

        def tried(step: float, like: float | None) -> Try:
            del like
            found[step] = coded(step)
            if bytes_wanted:
                length = sum(len(c.body) + 4 for c in found[step])
                return Try(step, length + self.budget.overhead, [])
            lost = 0.0
            for each, spec, x in zip(found[step], specs, tensors, strict=True):
                rest = x.astype(np.float32).reshape(-1)
                each.codec.decode(memoryview(each.body), spec).add_to(rest, -1.0)
                lost += squares(rest)
            return Try(step, lost / energy, [])

        def forecast(step: float) -> float:
            levels = np.floor(np.abs(some) / step + 0.4)
            if bytes_wanted:
                bits = entropy(np.minimum(levels, 255).astype(np.int64)) + (levels > 0).mean()
                return float(bits * size / 8 + 12 * len(tensors) + self.budget.overhead)
            return float(((np.abs(some) - levels * step) ** 2).sum() / (some**2).sum())

        target = self.budget.target_bytes or self.budget.max_nmse
        assert target is not None
        largest = max(float(np.abs(x).max(initial=0)) for x in tensors)
        slope = -0.8 if bytes_wanted else 1.5
        return found[settle(tried, forecast, target, slope, bracket(largest, size))[0].step]
