"""A quantized tensor plus the best low-rank part of what quantization lost."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.codec import Codec, Context
from flowerpress.compression.decoded import Decoded, Dense
from flowerpress.compression.errors import ConfigError, EncodeError, FormatError
from flowerpress.compression.factors import FactorFormat, as_matrix, factorize, matrix_shape
from flowerpress.compression.kernels.product import add_product
from flowerpress.compression.pipeline import Pipeline, lossy_input
from flowerpress.compression.spec import TensorSpec
from flowerpress.compression.wire import Reader, Writer

__all__ = ["LowRank"]

# Power iterations; more of them save less than a percent of the error.
TURNS = 3
WARM_TURNS = 2


class LowRank(Codec):
    """Low-rank compensation of a quantizer (Yao et al., ZeroQuant-V2, arXiv:2303.08302, section 5).

    With ``rounds`` 0, as there: quantize M to B, then find P Q close to M - B. With more, quantizer
    and factors take turns (Guo et al., LQ-LoRA, ICLR 2024, algorithm 1): factors of M first, then
    each round quantizes M - P Q and finds new factors of M - B. What arrives is B + P Q.

    ``rounds`` is known to encoders only. ``base`` quantizes; it may not select entries.
    """

    tag = 4
    lossless = False
    biased = True

    def __init__(self, base: Pipeline, form: FactorFormat, rounds: int = 0) -> None:
        if base.lossless:
            raise ConfigError("low rank cannot follow a lossless codec: nothing is lost")
        self.base = base
        self.form = form
        self.rounds = rounds

    def encode(self, x: NDArray[Any], spec: TensorSpec, context: Context) -> bytes:
        """Return the quantized tensor's body as a blob, then the factors."""
        matrix = as_matrix(lossy_input(x, spec), spec)
        single = TensorSpec(spec.name, spec.shape)  # float32, whatever the model has
        factors = self._factors(matrix, spec, context, context.warm) if self.rounds else None
        for _ in range(max(1, self.rounds)):
            rest = matrix
            if factors is not None:
                rest = matrix.copy()
                add_product(-factors[0], factors[1], rest)
            body = self.base.encode(rest.reshape(spec.shape), single, context)
            del rest
            base = self._base(memoryview(body), spec)
            with np.errstate(over="ignore"):
                lost = np.subtract(matrix, base, out=base)
            # With rounds, what was lost is close to the factors that were taken off.
            start = context.warm if factors is None else factors[1]
            factors = self._factors(lost, spec, context, start)
        assert factors is not None
        out = Writer()
        out.blob(body)
        self.form.write(*factors, spec, out)
        return out.getvalue()

    def decode(
        self, body: memoryview, spec: TensorSpec, reference: NDArray[Any] | None = None
    ) -> Decoded:
        """Return the sum of both parts, the same bits on every machine."""
        reader = self._reader(body, spec)
        out = self._base(reader.blob(), spec)
        left, right = self.form.read(spec, reader)
        add_product(left, right, out)
        return Dense(out.reshape(-1))

    def warmth(self, body: memoryview, spec: TensorSpec) -> NDArray[np.float32] | None:
        """Return the second factor, (rank, columns)."""
        reader = self._reader(body, spec)
        reader.blob()
        return self.form.read(spec, reader)[1]

    def write_recipe(self, out: Writer) -> None:
        """Write the format of the factors, then the recipe of the quantizer."""
        self.form.write_recipe(out)
        self.base.write_recipe(out)

    @classmethod
    def read_recipe(cls, reader: Reader) -> LowRank:
        """Read what ``write_recipe`` wrote."""
        form = FactorFormat.read_recipe(reader)
        base = Pipeline.read_recipe(reader)
        try:
            return cls(base, form)
        except ConfigError as error:
            raise FormatError(reader.field, str(error)) from error

    def describe(self) -> str:
        """Return both parts."""
        return f"{self.base.describe()} + {self.form.describe()}"

    def _base(self, body: memoryview, spec: TensorSpec) -> NDArray[np.float32]:
        """Return what the quantizer gives, a matrix to write to."""
        values = self.base.decode(body, TensorSpec(spec.name, spec.shape)).dense()
        return np.require(values, np.float32, ("C", "W", "A")).reshape(matrix_shape(spec))

    def _factors(
        self,
        matrix: NDArray[np.float32],
        spec: TensorSpec,
        context: Context,
        start: NDArray[np.float32] | None,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        if not np.isfinite(matrix).all():
            raise EncodeError(spec.name, "what its quantizer lost does not fit a float32")
        turns = TURNS if start is None else WARM_TURNS
        return factorize(matrix, self.form, spec, start=start, turns=turns, rng=context.rng)

    def _reader(self, body: memoryview, spec: TensorSpec) -> Reader:
        reader = Reader(body, f"frame[{spec.name!r}]")
        if len(spec.shape) < 2 or not spec.is_float:
            raise FormatError(reader.field, "factors for a tensor that is no matrix of floats")
        return reader
