"""One magnitude for all kept values, and their signs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.codec import Context
from flowerpress.compression.errors import FormatError
from flowerpress.compression.spec import TensorSpec
from flowerpress.compression.stages.base import Form, Levels, Opened, Stage
from flowerpress.compression.wire import Reader, Writer

__all__ = ["Ternary"]


class Ternary(Stage):
    """The mean magnitude of the values it is given, times their signs.

    After ``TopK`` this is sparse ternary compression (Sattler et al., IEEE TNNLS 2020, algorithm
    1): the mean runs over the *kept* entries, which is the least-squares choice; averaging over
    the zeros too would decode 1/density times too small. On a whole tensor it is EF-signSGD
    (Karimireddy et al., ICML 2019, algorithm 1). A ``magnitude`` that was settled beforehand takes
    the place of the mean. Side information: one float32. A kept zero counts as positive.
    """

    tag = 6
    name = "ternary"
    takes = Form.VALUES
    gives = Form.LEVELS

    def __init__(self, magnitude: float | None = None) -> None:
        self.magnitude = magnitude

    @property
    def alphabet(self) -> int:
        """Two signs."""
        return 2

    def encode(
        self, x: NDArray[Any], spec: TensorSpec, context: Context, side: Writer
    ) -> NDArray[Any] | Levels:
        """Return 1 for negative values, else 0."""
        magnitude = self.magnitude
        if magnitude is None:
            magnitude = float(np.abs(x).mean(dtype=np.float64)) if x.size else 0.0
        side.f32(magnitude)
        return Levels((x < 0).astype(np.uint8), 2)

    def open(self, count: int, spec: TensorSpec, side: Reader) -> Opened:
        """Read the magnitude."""
        magnitude = np.float32(side.f32())
        if magnitude < 0:
            raise FormatError(f"{side.field}.magnitude", f"{magnitude} is negative")
        values = np.array([magnitude, -magnitude], np.float32)
        return Opened(count, 2, lambda signs: values[signs])
