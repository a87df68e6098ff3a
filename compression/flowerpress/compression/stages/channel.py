"""Eight-bit integers with one scale for each output channel."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.codec import Context
from flowerpress.compression.errors import FormatError, NonFiniteError
from flowerpress.compression.spec import TensorSpec
from flowerpress.compression.stages.base import Form, Levels, Opened, Stage
from flowerpress.compression.wire import Reader, Writer

__all__ = ["Int8"]

LARGEST = 127
# 127 times this is the largest float32, or less.
LARGEST_SCALE = np.nextafter(np.finfo(np.float32).max / np.float32(LARGEST), np.float32(0))
# A scale for fewer values than this would take more bytes than the values do.
SHORTEST_CHANNEL = 4


class Int8(Stage):
    """Symmetric integers in [-127, 127], rounded to nearest, scale = max|x| / 127.

    A channel is an index of the first axis (PyTorch's output channels); tensors with fewer than
    two axes, or fewer than four values a channel, have one scale. Side information: one float32
    per channel. Worst-case error: half a scale, and 2**-143 where scales are denormal. Source:
    Jacob et al., CVPR 2018, section 2.1, without the zero point.
    """

    tag = 3
    name = "int8"
    takes = Form.TENSOR
    gives = Form.LEVELS

    @property
    def alphabet(self) -> int:
        """Integers from -127 to 127."""
        return 2 * LARGEST + 1

    def encode(
        self, x: NDArray[Any], spec: TensorSpec, context: Context, side: Writer
    ) -> NDArray[Any] | Levels:
        """Return ``x / scale + 127`` as levels over an alphabet of 255."""
        rows = x.reshape(_channels(spec), -1)
        scales = np.abs(rows).max(axis=1, initial=0.0) / np.float32(LARGEST)
        np.minimum(scales, LARGEST_SCALE, out=scales)
        side.raw(scales.astype("<f4").tobytes())
        # A row of zeros, or of denormals whose scale underflows, is coded as zeros.
        divisors = np.where(scales > 0, scales, np.float32(np.inf)).astype(np.float32)
        levels = np.rint(rows / divisors[:, None])
        np.clip(levels, -LARGEST, LARGEST, out=levels)
        levels += LARGEST
        return Levels(levels.astype(np.uint8).reshape(-1), 2 * LARGEST + 1)

    def open(self, count: int, spec: TensorSpec, side: Reader) -> Opened:
        """Read one scale per channel."""
        channels = _channels(spec)
        scales = np.frombuffer(side.take(4 * channels), "<f4")
        if not np.isfinite(scales).all():
            raise NonFiniteError(f"{side.field}.scales", "NaN or infinity")
        if (scales < 0).any() or (scales > LARGEST_SCALE).any():
            raise FormatError(f"{side.field}.scales", "negative, or too large for its levels")

        def restore(levels: NDArray[Any]) -> NDArray[Any]:
            signed = levels.astype(np.float32) - np.float32(LARGEST)
            rows = signed.reshape(channels, -1)
            rows *= scales[:, None]
            return rows.reshape(-1)

        return Opened(count, 2 * LARGEST + 1, restore)


def _channels(spec: TensorSpec) -> int:
    if len(spec.shape) < 2 or spec.size < SHORTEST_CHANNEL * spec.shape[0] or not spec.size:
        return 1
    return spec.shape[0]
