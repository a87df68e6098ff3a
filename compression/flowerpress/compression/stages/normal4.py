"""Four bits for normal values: the NF4 of QLoRA."""

from __future__ import annotations

from functools import lru_cache
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.kernels.formats import nearest
from flowerpress.compression.stages.scaled import Scaled
from flowerpress.compression.wire import Reader

__all__ = ["Normal4", "normal_levels"]

BLOCK = 64


class Normal4(Scaled):
    """NormalFloat of four bits (Dettmers et al., NeurIPS 2023, section 3), in blocks.

    Each block of ``group`` values is divided by its largest magnitude and rounded to the nearest
    of :func:`normal_levels`. Where the paper quantizes the blocks' constants a second time to eight
    bits, they are bfloat16 here and entropy coded, which takes about as much. ``group`` may also be
    0, the whole tensor, or 1, each output channel.
    """

    tag = 12
    name = "nf4"

    def __init__(self, group: int = BLOCK) -> None:
        super().__init__(group, 1.0)

    @property
    def alphabet(self) -> int:
        """Sixteen levels."""
        return 16

    def table(self) -> NDArray[np.float32]:
        """Return the sixteen levels, and zeros."""
        out = np.zeros(256, np.float32)
        out[:16] = normal_levels()
        return out

    def levels(
        self, x: NDArray[Any], scales: NDArray[np.float32], length: int, out: NDArray[np.uint8]
    ) -> None:
        """Take the nearest level; between two, the one below."""
        table = normal_levels()
        nearest(x, scales, length, (table[1:] + table[:-1]) / np.float32(2), out)

    @classmethod
    def read_params(cls, reader: Reader) -> Normal4:
        """Read the grouping."""
        return cls(cls.read_group(reader))

    def describe(self) -> str:
        """Return the name and who shares a scale."""
        return f"nf4, a scale for {self.grouping.describe()}"


@lru_cache(maxsize=1)
def normal_levels() -> NDArray[np.float32]:
    """Return the sixteen levels, (16,) float32, ascending from -1 to 1 with an exact zero.

    Quantiles of N(0, 1) at eight evenly spaced probabilities from one half up and seven from one
    half down, over the largest. The outermost probability lies half way between those that would
    leave half a level's share of sixteen and of fifteen beyond them: 1 - (1/32 + 1/30) / 2. (The
    paper's equation 4 averages neighbouring quantiles; its appendix E lists these.)
    """
    outermost = 1 - (1 / 32 + 1 / 30) / 2
    quantile = NormalDist().inv_cdf
    up = [quantile(p) for p in np.linspace(0.5, outermost, 9)[1:]]
    down = [-quantile(p) for p in np.linspace(0.5, outermost, 8)[1:]]
    levels = np.array([*down[::-1], 0.0, *up]) / up[-1]
    return levels.astype(np.float32)
