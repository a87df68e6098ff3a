"""Every bit kept: the tensor's own bytes as symbols."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.bfloat16 import from_bits, to_bits
from flowerpress.compression.codec import Context
from flowerpress.compression.errors import EncodeError, FormatError
from flowerpress.compression.spec import BFLOAT16, TensorSpec
from flowerpress.compression.stages.base import Form, Levels, Opened, Stage
from flowerpress.compression.wire import Reader, Writer

__all__ = ["Exact"]


class Exact(Stage):
    """The little-endian bytes of the elements, in the tensor's own dtype (two for bfloat16).

    ``planes=True`` groups all first bytes, then all second ones, and so on (the shuffle filter of
    HDF5 and Blosc), which puts the exponents of floats together for the coder.
    """

    tag = 1
    name = "exact"
    takes = Form.TENSOR
    gives = Form.LEVELS
    lossless = True
    biased = False

    def __init__(self, planes: bool = False) -> None:
        self.planes = planes

    @property
    def alphabet(self) -> int:
        """All bytes."""
        return 256

    def encode(
        self, x: NDArray[Any], spec: TensorSpec, context: Context, side: Writer
    ) -> NDArray[Any] | Levels:
        """Return the bytes of ``x`` as levels over an alphabet of 256."""
        with np.errstate(over="ignore"):
            own = spec.cast(x)
        # A difference may be wider than its tensor: float32 for a float16 one.
        if own is not x and spec.is_float and not np.isfinite(own).all():
            raise EncodeError(spec.name, f"a value does not fit {spec.dtype}")
        own = (to_bits(own) if spec.dtype == BFLOAT16 else own).astype(_little(spec), copy=False)
        octets = own.view(np.uint8)
        if self.planes:
            octets = octets.reshape(-1, own.itemsize).T.reshape(-1)
        return Levels(octets, 256)

    def open(self, count: int, spec: TensorSpec, side: Reader) -> Opened:
        """Expect ``count`` elements of the dtype of ``spec``."""
        dtype = _little(spec)

        def restore(octets: NDArray[Any]) -> NDArray[Any]:
            flat = octets.reshape(dtype.itemsize, -1).T if self.planes else octets
            bits = np.ascontiguousarray(flat).reshape(-1)
            if spec.dtype == BFLOAT16:
                return from_bits(bits.view(dtype))
            # A byte other than 0 and 1 is not a bool that NumPy may hold.
            return bits != 0 if spec.dtype == "bool" else bits.view(dtype)

        return Opened(count * dtype.itemsize, 256, restore)

    def write_params(self, out: Writer) -> None:
        """Write whether bytes are grouped."""
        out.u8(int(self.planes))

    @classmethod
    def read_params(cls, reader: Reader) -> Exact:
        """Read whether bytes are grouped."""
        planes = reader.u8()
        if planes > 1:
            raise FormatError(f"{reader.field}.exact", f"{planes} is neither 0 nor 1")
        return cls(planes=planes == 1)

    def describe(self) -> str:
        """Return the name, and whether bytes are grouped."""
        return "exact bytes by plane" if self.planes else "exact bytes"


def _little(spec: TensorSpec) -> np.dtype[Any]:
    own = np.dtype(np.uint16) if spec.dtype == BFLOAT16 else spec.storage
    return own.newbyteorder("<")
