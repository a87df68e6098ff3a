"""The upper half of a float32."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.bfloat16 import from_bits
from flowerpress.compression.codec import Context
from flowerpress.compression.errors import EncodeError
from flowerpress.compression.kernels.formats import brain
from flowerpress.compression.spec import TensorSpec
from flowerpress.compression.stages.base import Form, Levels, Opened, Stage
from flowerpress.compression.wire import Reader, Writer

__all__ = ["Bfloat"]

_INFINITY = 0x7F80
LARGEST = 3.3895313892515355e38


class Bfloat(Stage):
    """bfloat16, rounded to nearest even: relative error at most 2**-8 over the range of float32.

    Kalamkar et al., arXiv:1905.12322, section 2. Subnormals are kept: below 2**-126 the error is
    at most 2**-134. What rounds beyond 3.39e38 is refused, not turned into infinity.
    """

    tag = 9
    name = "bf16"
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
        brain(x.view(np.uint32), out)
        if x.size and (np.abs(x).max() > LARGEST) and ((out & 0x7FFF) >= _INFINITY).any():
            raise EncodeError(
                spec.name, f"a value beyond {LARGEST:.4g} does not fit bf16; send it with 'none'"
            )
        return Levels(out, 1 << 16)

    def open(self, count: int, spec: TensorSpec, side: Reader) -> Opened:
        """Expect ``count`` patterns."""
        return Opened(count, 1 << 16, from_bits)
