"""Thirty-two-bit floats, for the values that a selection left."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.codec import Context
from flowerpress.compression.spec import TensorSpec
from flowerpress.compression.stages.base import Form, Levels, Opened, Stage
from flowerpress.compression.wire import Reader, Writer

__all__ = ["Single"]


class Single(Stage):
    """The IEEE 754 patterns of the values: no rounding beyond that of the pipeline to float32.

    Sign and exponent are the highest nine bits of a pattern, which is what ``rans`` models.
    """

    tag = 13
    name = "fp32"
    takes = Form.VALUES
    gives = Form.LEVELS
    biased = False

    @property
    def alphabet(self) -> int:
        """All patterns of 32 bits."""
        return 1 << 32

    def encode(
        self, x: NDArray[Any], spec: TensorSpec, context: Context, side: Writer
    ) -> NDArray[Any] | Levels:
        """Return the 32-bit patterns of ``x``."""
        return Levels(x.view(np.uint32), 1 << 32)

    def open(self, count: int, spec: TensorSpec, side: Reader) -> Opened:
        """Expect ``count`` patterns."""
        return Opened(count, 1 << 32, lambda patterns: patterns.view(np.float32))
