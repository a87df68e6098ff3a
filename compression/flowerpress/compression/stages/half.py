"""Sixteen-bit floats."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.codec import Context
from flowerpress.compression.errors import EncodeError
from flowerpress.compression.kernels.formats import half
from flowerpress.compression.spec import TensorSpec
from flowerpress.compression.stages.base import Form, Levels, Opened, Stage
from flowerpress.compression.wire import Reader, Writer

__all__ = ["Half"]

LARGEST = 65504.0
_INFINITY = 0x7C00


class Half(Stage):
    """IEEE 754 half precision, rounded to nearest even: relative error at most 2**-11.

    Values beyond 65504 are refused, not turned into infinities; those below 6e-8 become zero.
    """

    tag = 2
    name = "fp16"
    takes = Form.VALUES
    gives = Form.LEVELS

    @property
    def alphabet(self) -> int:
        """All patterns of 16 bits."""
        return 1 << 16

    def encode(
        self, x: NDArray[Any], spec: TensorSpec, context: Context, side: Writer
    ) -> NDArray[Any] | Levels:
        """Return the 16-bit patterns of ``x``."""
        out = np.empty(x.size, np.uint16)
        half(x, x.view(np.uint32), out)
        if ((out & 0x7FFF) >= _INFINITY).any():
            raise EncodeError(
                spec.name, f"a value beyond {LARGEST:g} does not fit fp16; send it with 'none'"
            )
        return Levels(out, 1 << 16)

    def open(self, count: int, spec: TensorSpec, side: Reader) -> Opened:
        """Expect ``count`` patterns."""

        def restore(patterns: NDArray[Any]) -> NDArray[Any]:
            return patterns.astype("<u2", copy=False).view("<f2").astype(np.float32)

        return Opened(count, 1 << 16, restore)
