"""Eight-bit floats."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.errors import FormatError, UnknownNameError
from flowerpress.compression.kernels.formats import float8
from flowerpress.compression.stages.scaled import Scaled
from flowerpress.compression.stages.scales import TENSOR
from flowerpress.compression.wire import Reader, Writer

__all__ = ["FORMATS", "Float8", "Layout"]


@dataclass(frozen=True)
class Layout:
    """Bits of an eight-bit float: its number on the wire, mantissa bits, bias, largest pattern."""

    code: int
    mantissa: int
    bias: int
    top: int

    @property
    def largest(self) -> float:
        """The largest finite magnitude."""
        exponent, fraction = divmod(self.top, 1 << self.mantissa)
        return float(2.0 ** (exponent - self.bias) * (1 + fraction / (1 << self.mantissa)))


# E4M3 has no infinity and a single NaN, so its largest is 448 and not 240; E5M2 is as IEEE 754.
FORMATS = {"e4m3": Layout(0, 3, 7, 0x7E), "e5m2": Layout(1, 2, 15, 0x7B)}
_BY_CODE = {layout.code: name for name, layout in FORMATS.items()}


class Float8(Scaled):
    """FP8 of Micikevicius et al., arXiv:2209.05433, section 3: E4M3 or E5M2, with shared scales.

    scale = max|x| / (448 or 57344), so that a group's largest magnitude is the format's. Rounds to
    nearest even, with subnormals; saturates. Relative error: at most 2**-4 (E4M3) or 2**-3 (E5M2)
    of values above 2**-6 or 2**-14 scales; below, half of 2**-9 or 2**-16 scales. ``group`` says
    who shares a scale: 0 the whole tensor, 1 each output channel, from 2 on blocks of so many
    values.
    """

    tag = 10
    name = "fp8"

    def __init__(self, name: str = "e4m3", group: int = TENSOR) -> None:
        if name not in FORMATS:
            raise UnknownNameError("format of eight-bit floats", name, FORMATS)
        self.format = name
        self.layout = FORMATS[name]
        super().__init__(group, self.layout.largest)

    @property
    def alphabet(self) -> int:
        """All patterns of 8 bits."""
        return 256

    def table(self) -> NDArray[np.float32]:
        """Return the value of every pattern, among them NaN and, in E5M2, infinities."""
        return _table(self.layout)

    def levels(
        self, x: NDArray[Any], scales: NDArray[np.float32], length: int, out: NDArray[np.uint8]
    ) -> None:
        """Round to nearest, halves to even."""
        layout = self.layout
        float8(x, scales, length, layout.mantissa, layout.bias, layout.top, out)

    def write_params(self, out: Writer) -> None:
        """Write the format and the grouping."""
        out.u8(self.layout.code)
        super().write_params(out)

    @classmethod
    def read_params(cls, reader: Reader) -> Float8:
        """Read the format and the grouping."""
        code = reader.u8()
        if code not in _BY_CODE:
            raise FormatError(f"{reader.field}.fp8", f"unknown format {code}")
        return cls(_BY_CODE[code], cls.read_group(reader))

    def describe(self) -> str:
        """Return the format and who shares a scale."""
        return f"fp8 {self.format}, a scale for {self.grouping.describe()}"


@lru_cache(maxsize=2)
def _table(layout: Layout) -> NDArray[np.float32]:
    patterns = np.arange(128)
    exponent, fraction = np.divmod(patterns, 1 << layout.mantissa)
    steps = np.where(exponent > 0, fraction + (1 << layout.mantissa), fraction)
    positive = np.ldexp(
        steps.astype(np.float32), np.maximum(exponent, 1) - layout.bias - layout.mantissa
    )
    positive[patterns > layout.top] = np.nan
    if layout.mantissa == 2:
        positive[layout.top + 1] = np.inf
    return np.concatenate([positive, -positive]).astype(np.float32)
