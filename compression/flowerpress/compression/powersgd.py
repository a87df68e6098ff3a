"""PowerSGD: a tensor as the product of two thin factors, found from where the last one ended."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.codec import Codec, Context
from flowerpress.compression.decoded import Decoded, Dense
from flowerpress.compression.errors import FormatError
from flowerpress.compression.factors import FactorFormat, as_matrix, factorize, matrix_shape
from flowerpress.compression.kernels.product import add_product
from flowerpress.compression.pipeline import lossy_input
from flowerpress.compression.spec import TensorSpec
from flowerpress.compression.wire import Reader, Writer

__all__ = ["PowerSgd"]


class PowerSgd(Codec):
    """Rank-r compression with one step of power iteration (Vogels et al., NeurIPS 2019).

    Algorithm 1 there: P = M Q, orthogonalized; Q = M^T P; what arrives is P Q^T. Q starts where
    the previous update's ended (``warmth``), so that over rounds the iteration converges, and at
    random the first time. It needs error feedback (algorithm 2). With one client a message there is
    no all-reduce between the two products, so P and Q belong to this client's matrix; and since
    clients may come once and never again, a random start gets a second iteration.
    """

    tag = 3
    lossless = False
    biased = True

    def __init__(self, form: FactorFormat) -> None:
        self.form = form

    def encode(self, x: NDArray[Any], spec: TensorSpec, context: Context) -> bytes:
        """Return the two factors."""
        left, right = factorize(
            as_matrix(lossy_input(x, spec), spec),
            self.form,
            spec,
            start=context.warm,
            turns=1,
            rng=context.rng,
        )
        body = Writer()
        self.form.write(left, right, spec, body)
        return body.getvalue()

    def decode(
        self, body: memoryview, spec: TensorSpec, reference: NDArray[Any] | None = None
    ) -> Decoded:
        """Return the factors' product, the same bits on every machine."""
        left, right = self._read(body, spec)
        out = np.zeros(matrix_shape(spec), np.float32)
        add_product(left, right, out)
        return Dense(out.reshape(-1))

    def warmth(self, body: memoryview, spec: TensorSpec) -> NDArray[np.float32] | None:
        """Return the second factor, (rank, columns)."""
        return self._read(body, spec)[1]

    def write_recipe(self, out: Writer) -> None:
        """Write the format of the factors."""
        self.form.write_recipe(out)

    @classmethod
    def read_recipe(cls, reader: Reader) -> PowerSgd:
        """Read the format of the factors."""
        return cls(FactorFormat.read_recipe(reader))

    def describe(self) -> str:
        """Return the name and the format of the factors."""
        return f"powersgd {self.form.describe()}"

    def _read(
        self, body: memoryview, spec: TensorSpec
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        reader = Reader(body, f"frame[{spec.name!r}]")
        if len(spec.shape) < 2 or not spec.is_float:
            raise FormatError(reader.field, "factors for a tensor that is no matrix of floats")
        return self.form.read(spec, reader)
