"""One absolute step for every element."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.codec import Context
from flowerpress.compression.errors import ConfigError, EncodeError, FormatError
from flowerpress.compression.kernels.uniform import expand, round_to_grid
from flowerpress.compression.spec import TensorSpec
from flowerpress.compression.stages.base import Form, Levels, Opened, Stage
from flowerpress.compression.wire import Reader, Writer

__all__ = ["Uniform"]

SMALLEST_STEP = 1e-30
_MOST = 127
# Rounding from here up instead of from one half saves more bits than it costs in error.
_BIAS = 0.4


class Uniform(Stage):
    """Levels of one absolute ``step`` with a dead zone, at most 127 to either side.

    A tensor whose largest value lies beyond gets a larger step of its own. Source: uniform
    quantization with a dead zone and entropy coding, G. Sullivan, IEEE Trans. Inf. Theory 42(5),
    1996. Side information: the step and the largest level. ``step`` is None in a stage that was
    read from bytes: it decodes and does not encode.
    """

    tag = 50
    name = "uniform"
    takes = Form.VALUES
    gives = Form.LEVELS

    def __init__(self, step: float | None) -> None:
        if step is not None and not SMALLEST_STEP <= step < math.inf:
            raise ConfigError(f"step is {step}; it must be at least {SMALLEST_STEP}")
        self.step = step

    @property
    def alphabet(self) -> int:
        """Zero and 127 levels to either side."""
        return 2 * _MOST + 1

    def encode(
        self, x: NDArray[Any], spec: TensorSpec, context: Context, side: Writer
    ) -> NDArray[Any] | Levels:
        """Return signed levels plus the largest."""
        if self.step is None:
            raise EncodeError(spec.name, "a uniform stage read from bytes cannot encode")
        x = x.astype(np.float32, copy=False)
        largest = max(float(x.max(initial=0)), -float(x.min(initial=0)))
        step = np.float32(max(self.step, largest / _MOST))
        inverse = np.float32(1) / step
        # As the kernel computes it.
        middle = min(_MOST, int(np.floor(np.float32(largest) * inverse + np.float32(_BIAS))))
        levels = np.empty(x.size, np.uint8)
        round_to_grid(x, inverse, np.float32(_BIAS), middle, levels)
        side.f32(float(step))
        side.u8(middle)
        return Levels(levels, 2 * middle + 1)

    def open(self, count: int, spec: TensorSpec, side: Reader) -> Opened:
        """Read the step and the largest level."""
        step, middle = np.float32(side.f32()), side.u8()
        if not step >= np.float32(SMALLEST_STEP) or middle > _MOST:
            raise FormatError(f"{side.field}.step", f"{middle} levels of {step}")

        def restore(levels: NDArray[Any]) -> NDArray[Any]:
            out = np.empty(levels.size, np.float32)
            expand(levels, middle, step, out)
            return out

        return Opened(count, 2 * middle + 1, restore)

    @classmethod
    def read_params(cls, reader: Reader) -> Uniform:
        """Read nothing: every body has its own step."""
        return cls(None)

    def describe(self) -> str:
        """Return the name and the step."""
        return "uniform" if self.step is None else f"uniform, step {self.step:.3g}"
