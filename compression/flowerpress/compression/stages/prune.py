"""Small entries set to zero, the tensor left dense."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.codec import Context
from flowerpress.compression.errors import ConfigError, EncodeError
from flowerpress.compression.kernels.select import largest
from flowerpress.compression.spec import TensorSpec
from flowerpress.compression.stages.base import Form, Levels, Opened, Stage
from flowerpress.compression.stages.topk import kept
from flowerpress.compression.wire import Reader, Writer

__all__ = ["Prune"]


class Prune(Stage):
    """All but the ``round(density * n)`` largest magnitudes become zero; the decoder does nothing.

    FedZip's top-z step (Malekijoo et al., arXiv:2102.01593, section 3.1), which comes before
    clustering; a later stage decides how zeros are coded. ``density`` is None in a stage that was
    read from bytes: it decodes and does not encode.
    """

    tag = 5
    name = "prune"
    takes = Form.TENSOR
    gives = Form.TENSOR

    def __init__(self, density: float | None = 0.2) -> None:
        if density is not None and not 0 < density <= 1:
            raise ConfigError(f"density is {density}; it must be above 0 and at most 1")
        self.density = density

    def encode(
        self, x: NDArray[Any], spec: TensorSpec, context: Context, side: Writer
    ) -> NDArray[Any] | Levels:
        """Return a copy of ``x`` with the small entries zeroed."""
        if self.density is None:
            raise EncodeError(spec.name, "a prune stage read from bytes cannot encode")
        where = largest(x, kept(x.size, self.density))
        out = np.zeros_like(x)
        out[where] = x[where]
        return out

    def open(self, count: int, spec: TensorSpec, side: Reader) -> Opened:
        """Expect the same number of elements."""
        return Opened(count, 0, lambda values: values)

    @classmethod
    def read_params(cls, reader: Reader) -> Prune:
        """Read nothing: a decoder needs no density."""
        return cls(None)

    def describe(self) -> str:
        """Return the name and the density in percent."""
        return "prune" if self.density is None else f"prune to {100 * self.density:g}%"
