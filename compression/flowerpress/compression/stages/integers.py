"""Integers of two to eight bits with shared scales."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.codec import Context
from flowerpress.compression.errors import ConfigError, EncodeError, FormatError
from flowerpress.compression.kernels.formats import integers, randomized
from flowerpress.compression.spec import TensorSpec
from flowerpress.compression.stages.base import Levels
from flowerpress.compression.stages.scaled import Scaled
from flowerpress.compression.stages.scales import TENSOR
from flowerpress.compression.wire import Reader, Writer

__all__ = ["Integers", "noise_for"]

FEWEST_BITS, MOST_BITS = 2, 8


class Integers(Scaled):
    """Symmetric integers of ``bits`` bits, rounded to nearest, scale = max|x| / (2**(bits-1) - 1).

    ``group`` says who shares a scale: 0 the whole tensor, 1 each output channel, from 2 on blocks
    of so many values. Error: at most half a scale. Sources: Jacob et al., CVPR 2018, section 2.1,
    without the zero point; blocks: Dettmers et al., ICLR 2022, section 2.1.

    ``stochastic``: rounded at random, up as often as the fraction says, so that the mean is right
    and the error below a scale (Gupta et al., ICML 2015, section 3). Only encoders know of it.
    """

    tag = 11
    name = "integers"

    def __init__(self, bits: int = 8, group: int = TENSOR, stochastic: bool = False) -> None:
        if not FEWEST_BITS <= bits <= MOST_BITS:
            raise ConfigError(f"bits is {bits}; it must be from {FEWEST_BITS} to {MOST_BITS}")
        self.bits = bits
        self.stochastic = stochastic
        self.biased = not stochastic
        self.largest = (1 << (bits - 1)) - 1
        super().__init__(group, self.largest)

    @property
    def alphabet(self) -> int:
        """Integers from minus to plus the largest."""
        return 2 * self.largest + 1

    def table(self) -> NDArray[np.float32]:
        """Return the integers."""
        return np.arange(256, dtype=np.float32) - np.float32(self.largest)

    def encode(
        self, x: NDArray[Any], spec: TensorSpec, context: Context, side: Writer
    ) -> NDArray[Any] | Levels:
        """Write the scales, return the levels."""
        if not self.stochastic:
            return super().encode(x, spec, context, side)
        noise = noise_for(x.size, spec, context)
        scales = self.grouping.write(x, spec, side)
        out = np.empty(x.size, np.uint8)
        length = self.grouping.length(x.size, spec)
        randomized(x, scales, length, self.largest, noise, out)
        return Levels(out, self.alphabet)

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
        how = " at random" if self.stochastic else ""
        return f"int{self.bits}{how}, a scale for {self.grouping.describe()}"


def noise_for(count: int, spec: TensorSpec, context: Context) -> NDArray[np.float32]:
    """Return (count,) float32, uniform in [0, 1).

    Raises:
        EncodeError: the context has no generator.
    """
    if context.rng is None:
        raise EncodeError(spec.name, "stochastic rounding was given no generator")
    return context.rng.random(count, dtype=np.float32)
