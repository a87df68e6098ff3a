"""Formats of at most eight bits whose values are a scale times one of a few fixed numbers."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.codec import Context
from flowerpress.compression.errors import ConfigError, FormatError
from flowerpress.compression.kernels.formats import lookup
from flowerpress.compression.spec import TensorSpec
from flowerpress.compression.stages.base import Form, Levels, Opened, Stage
from flowerpress.compression.stages.scales import Grouping
from flowerpress.compression.wire import Reader, Writer

__all__ = ["Scaled"]


class Scaled(Stage):
    """A grouping of scales, and a table from levels to the numbers that scales multiply.

    Subclasses say what the table is and how the level nearest to a value is found.
    """

    gives = Form.LEVELS

    def __init__(self, group: int, divisor: float) -> None:
        self.grouping = Grouping(group, divisor)
        self.takes = self.grouping.takes

    @abstractmethod
    def table(self) -> NDArray[np.float32]:
        """Return (256,) float32: the number that each level stands for."""

    @abstractmethod
    def levels(
        self, x: NDArray[Any], scales: NDArray[np.float32], length: int, out: NDArray[np.uint8]
    ) -> None:
        """Set ``out`` to the levels nearest to ``x / scale``, in groups of ``length``."""

    def encode(
        self, x: NDArray[Any], spec: TensorSpec, context: Context, side: Writer
    ) -> NDArray[Any] | Levels:
        """Write the scales, return the levels."""
        scales = self.grouping.write(x, spec, side)
        out = np.empty(x.size, np.uint8)
        self.levels(x, scales, self.grouping.length(x.size, spec), out)
        return Levels(out, self.alphabet)

    def open(self, count: int, spec: TensorSpec, side: Reader) -> Opened:
        """Read the scales."""
        scales = self.grouping.read(count, spec, side)

        def restore(levels: NDArray[Any]) -> NDArray[Any]:
            out = np.empty(count, np.float32)
            lookup(levels, self.table(), scales, self.grouping.length(count, spec), out)
            return out

        return Opened(count, self.alphabet, restore)

    def write_params(self, out: Writer) -> None:
        """Write the grouping; subclasses write their own ahead of it."""
        out.varint(self.grouping.code)

    @staticmethod
    def read_group(reader: Reader) -> int:
        """Read a grouping.

        Raises:
            WireError: not one that an encoder writes.
        """
        code = reader.varint()
        try:
            Grouping(code, 1.0)
        except ConfigError:
            raise FormatError(f"{reader.field}.group", f"blocks of {code} values") from None
        return code
