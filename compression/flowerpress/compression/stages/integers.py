"""Integers of two to eight bits with shared scales."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.errors import ConfigError, FormatError
from flowerpress.compression.kernels.formats import integers
from flowerpress.compression.stages.scaled import Scaled
from flowerpress.compression.stages.scales import TENSOR
from flowerpress.compression.wire import Reader, Writer

__all__ = ["Integers"]

FEWEST_BITS, MOST_BITS = 2, 8


class Integers(Scaled):
    """Symmetric integers of ``bits`` bits, rounded to nearest, scale = max|x| / (2**(bits-1) - 1).

    ``group`` says who shares a scale: 0 the whole tensor, 1 each output channel, from 2 on blocks
    of so many values. Error: at most half a scale. Sources: Jacob et al., CVPR 2018, section 2.1,
    without the zero point; blocks: Dettmers et al., ICLR 2022, section 2.1.
    """

    tag = 11
    name = "integers"

    def __init__(self, bits: int = 8, group: int = TENSOR) -> None:
        if not FEWEST_BITS <= bits <= MOST_BITS:
            raise ConfigError(f"bits is {bits}; it must be from {FEWEST_BITS} to {MOST_BITS}")
        self.bits = bits
        self.largest = (1 << (bits - 1)) - 1
        super().__init__(group, self.largest)

    @property
    def alphabet(self) -> int:
        """Integers from minus to plus the largest."""
        return 2 * self.largest + 1

    def table(self) -> NDArray[np.float32]:
        """Return the integers."""
        return np.arange(256, dtype=np.float32) - np.float32(self.largest)

    def levels(
        self, x: NDArray[Any], scales: NDArray[np.float32], length: int, out: NDArray[np.uint8]
    ) -> None:
        """Round to nearest, halves to even."""
        integers(x, scales, length, self.largest, out)

    def write_params(self, out: Writer) -> None:
        """Write the number of bits and the grouping."""
        out.u8(self.bits)
        super().write_params(out)

    @classmethod
    def read_params(cls, reader: Reader) -> Integers:
        """Read the number of bits and the grouping."""
        bits = reader.u8()
        if not FEWEST_BITS <= bits <= MOST_BITS:
            raise FormatError(f"{reader.field}.integers", f"of {bits} bits")
        return cls(bits, cls.read_group(reader))

    def describe(self) -> str:
        """Return the width and who shares a scale."""
        return f"int{self.bits}, a scale for {self.grouping.describe()}"
