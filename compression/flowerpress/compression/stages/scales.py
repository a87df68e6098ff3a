"""Scales that groups of values share: who shares one, and how scales are sent.

A *grouping* is one number: 0 for a single scale, 1 for one scale an output channel, and from 2 on
the length of blocks of consecutive values. Single and channel scales are float32. Blocks are many,
so theirs are bfloat16 patterns, rounded up so that no value is clipped, and coded by rANS: about
nine bits each instead of thirty-two.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.bfloat16 import from_bits
from flowerpress.compression.coders.rans import Rans
from flowerpress.compression.errors import ConfigError, FormatError, NonFiniteError
from flowerpress.compression.kernels.formats import peaks
from flowerpress.compression.spec import TensorSpec
from flowerpress.compression.stages.base import Form
from flowerpress.compression.wire import Reader, Writer

__all__ = ["CHANNEL", "TENSOR", "Grouping", "channels", "largest_scale"]

TENSOR = 0
CHANNEL = 1
LARGEST_BLOCK = (1 << 31) - 1
# A scale for fewer values than this would take more bytes than the values do.
SHORTEST_CHANNEL = 4
_PATTERNS = 1 << 15  # of bfloat16 without a sign


def channels(spec: TensorSpec) -> int:
    """Return the extent of the first axis, or 1 where channels make no sense.

    That is: fewer than two axes, or fewer than four elements a channel.
    """
    if len(spec.shape) < 2 or spec.size < SHORTEST_CHANNEL * spec.shape[0] or not spec.size:
        return 1
    return spec.shape[0]


def largest_scale(divisor: float) -> np.float32:
    """Return a float32 that stays finite when multiplied by ``divisor``, close to the largest."""
    top = np.finfo(np.float32).max / np.float32(divisor)
    return np.float32(np.nextafter(top, np.float32(0)))


class Grouping:
    """Which values share a scale, and the scales' bytes.

    ``code`` is the number on the wire. A scale times ``divisor``, the largest magnitude that a
    format has, is the largest magnitude of its group.
    """

    def __init__(self, code: int, divisor: float) -> None:
        if not 0 <= code <= LARGEST_BLOCK:
            raise ConfigError(f"block is {code}; it must be from 2 to {LARGEST_BLOCK}")
        self.code = code
        self.divisor = divisor
        self.largest = largest_scale(divisor)

    @property
    def takes(self) -> Form:
        """Channels exist in whole tensors only."""
        return Form.TENSOR if self.code == CHANNEL else Form.VALUES

    def describe(self) -> str:
        """Return who shares a scale."""
        return ("a tensor", "a channel")[self.code] if self.code < 2 else f"{self.code} values"

    def length(self, count: int, spec: TensorSpec) -> int:
        """Return how many of ``count`` values share a scale, at least 1."""
        if self.code == CHANNEL:
            return max(count // channels(spec), 1)
        return self.code or max(count, 1)

    def write(self, x: NDArray[Any], spec: TensorSpec, side: Writer) -> NDArray[np.float32]:
        """Write the scales of flat float32 ``x`` and return them as a decoder has them."""
        length = self.length(x.size, spec)
        tops = np.empty(-(-x.size // length), np.uint32)
        peaks(x.view(np.uint32), length, tops)
        scales: NDArray[np.float32] = tops.view(np.float32) / np.float32(self.divisor)
        np.minimum(scales, self.largest, out=scales)
        if self.code < 2:
            side.raw(scales.astype("<f4").tobytes())
            return scales
        codes = (scales.view(np.uint32) + np.uint32(0xFFFF)) >> np.uint32(16)
        np.minimum(codes, self.largest.view(np.uint32) >> np.uint32(16), out=codes)
        side.blob(Rans().encode(codes, _PATTERNS))
        return from_bits(codes)

    def read(self, count: int, spec: TensorSpec, side: Reader) -> NDArray[np.float32]:
        """Read the scales for ``count`` values.

        Raises:
            WireError: NaN, infinity, negative, or so large that values would overflow.
        """
        groups = -(-count // self.length(count, spec))
        if self.code < 2:
            scales = np.frombuffer(side.take(4 * groups), "<f4").astype(np.float32)
        else:
            codes = Rans().decode(side.blob(), groups, _PATTERNS)
            scales = from_bits(codes)
        if not np.isfinite(scales).all():
            raise NonFiniteError(f"{side.field}.scales", "NaN or infinity")
        if (scales < 0).any() or (scales > self.largest).any():
            raise FormatError(f"{side.field}.scales", "negative, or too large for its levels")
        return scales
