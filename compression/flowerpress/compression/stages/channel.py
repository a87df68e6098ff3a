"""Eight-bit integers with one scale for each output channel."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.codec import Context
from flowerpress.compression.errors import FormatError, NonFiniteError
from flowerpress.compression.kernels.formats import integers, lookup, peaks, randomized
from flowerpress.compression.spec import TensorSpec
from flowerpress.compression.stages.base import Form, Levels, Opened, Stage
from flowerpress.compression.stages.integers import noise_for
from flowerpress.compression.stages.scales import channels, largest_scale
from flowerpress.compression.wire import Reader, Writer

__all__ = ["Int8"]

LARGEST = 127
LARGEST_SCALE = largest_scale(LARGEST)
TABLE = np.arange(256, dtype=np.float32) - np.float32(LARGEST)


class Int8(Stage):
    """Symmetric integers in [-127, 127], rounded to nearest, scale = max|x| / 127.

    A channel is an index of the first axis (PyTorch's output channels); tensors with fewer than
    two axes, or fewer than four values a channel, have one scale. Side information: one float32
    per channel. Worst-case error: half a scale, and 2**-143 where scales are denormal. Source:
    Jacob et al., CVPR 2018, section 2.1, without the zero point.

    ``stochastic``: rounded at random, up as often as the fraction says, so that the mean is right
    and the error below a scale (Gupta et al., ICML 2015, section 3). Only encoders know of it.
    """

    tag = 3
    name = "int8"
    takes = Form.TENSOR
    gives = Form.LEVELS

    def __init__(self, stochastic: bool = False) -> None:
        self.stochastic = stochastic
        self.biased = not stochastic

    @property
    def alphabet(self) -> int:
        """Integers from -127 to 127."""
        return 2 * LARGEST + 1

    def encode(
        self, x: NDArray[Any], spec: TensorSpec, context: Context, side: Writer
    ) -> NDArray[Any] | Levels:
        """Return ``x / scale + 127`` as levels over an alphabet of 255."""
        many = channels(spec)
        length = max(x.size // many, 1)
        tops = np.zeros(many, np.uint32)
        peaks(x.view(np.uint32), length, tops)
        scales = np.minimum(tops.view(np.float32) / np.float32(LARGEST), LARGEST_SCALE)
        side.raw(scales.astype("<f4").tobytes())
        # A row of zeros, or of denormals whose scale underflows, is coded as zeros.
        levels = np.empty(x.size, np.uint8)
        if self.stochastic:
            noise = noise_for(x.size, spec, context)
            randomized(x, scales, length, LARGEST, noise, levels)
        else:
            integers(x, scales, length, LARGEST, levels)
        return Levels(levels, 2 * LARGEST + 1)

    def open(self, count: int, spec: TensorSpec, side: Reader) -> Opened:
        """Read one scale per channel."""
        many = channels(spec)
        scales = np.frombuffer(side.take(4 * many), "<f4").astype(np.float32)
        if not np.isfinite(scales).all():
            raise NonFiniteError(f"{side.field}.scales", "NaN or infinity")
        if (scales < 0).any() or (scales > LARGEST_SCALE).any():
            raise FormatError(f"{side.field}.scales", "negative, or too large for its levels")

        def restore(levels: NDArray[Any]) -> NDArray[Any]:
            out = np.empty(count, np.float32)
            lookup(levels, TABLE, scales, max(count // many, 1), out)
            return out

        return Opened(count, 2 * LARGEST + 1, restore)

    def describe(self) -> str:
        """Return the name, and how it rounds unless to nearest."""
        return f"{self.name} at random" if self.stochastic else self.name
