"""Stochastic levels between zero and a bucket's norm."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.codec import Context
from flowerpress.compression.errors import ConfigError, EncodeError, FormatError, NonFiniteError
from flowerpress.compression.spec import TensorSpec
from flowerpress.compression.stages.base import Form, Levels, Opened, Stage
from flowerpress.compression.wire import Reader, Writer

__all__ = ["Qsgd"]

MAX_LEVELS = 1 << 14
NORMS = ("max", "l2")


class Qsgd(Stage):
    """Unbiased stochastic rounding to ``levels`` steps per bucket (Alistarh et al., NIPS 2017).

    Each bucket of ``bucket`` consecutive values is scaled by its norm: ``l2`` as in the paper's
    section 3.1, which makes few levels sparse, or ``max`` (its section 4 variant), whose error is
    bounded by one step and which is the better choice from about three levels up. E[decoded] = x.
    Side information: one float32 step a bucket.
    """

    tag = 7
    name = "qsgd"
    takes = Form.VALUES
    gives = Form.LEVELS
    biased = False

    def __init__(self, levels: int = 7, bucket: int = 512, norm: str = "max") -> None:
        if not 1 <= levels <= MAX_LEVELS:
            raise ConfigError(f"levels is {levels}; it must be from 1 to {MAX_LEVELS}")
        if not 1 <= bucket < 1 << 31:
            raise ConfigError(f"bucket is {bucket}; it must be from 1 to 2**31 - 1")
        if norm not in NORMS:
            raise ConfigError(f"norm is {norm!r}; it must be one of {', '.join(NORMS)}")
        self.levels = levels
        self.bucket = bucket
        self.norm = norm

    @property
    def alphabet(self) -> int:
        """Zero and ``levels`` steps to either side."""
        return 2 * self.levels + 1

    def encode(
        self, x: NDArray[Any], spec: TensorSpec, context: Context, side: Writer
    ) -> NDArray[Any] | Levels:
        """Return signed levels plus ``levels``, over an alphabet of ``2 * levels + 1``."""
        if context.rng is None:
            raise EncodeError(spec.name, "qsgd is stochastic and was given no generator")
        bucket = min(self.bucket, max(x.size, 1))
        padded = np.zeros(self._buckets(x.size) * bucket, np.float64)
        padded[: x.size] = x
        rows = padded.reshape(-1, bucket)
        norms = (
            np.abs(rows).max(axis=1, initial=0.0)
            if self.norm == "max"
            else np.sqrt((rows * rows).sum(axis=1))
        )
        with np.errstate(over="ignore"):
            steps = (norms / self.levels).astype("<f4")
        if not self._fit(steps):
            raise EncodeError(spec.name, "a bucket's norm does not fit a float32")
        side.raw(steps.tobytes())
        # Rounding relative to the step as the decoder has it keeps the expectation exact.
        divisors = np.where(steps > 0, steps, np.inf).astype(np.float64)
        scaled = rows / divisors[:, None]
        low = np.floor(scaled)
        low += context.rng.random(scaled.shape) < scaled - low
        np.clip(low, -self.levels, self.levels, out=low)
        low += self.levels
        dtype = np.uint8 if self.levels < 128 else np.uint16
        return Levels(low.astype(dtype).reshape(-1)[: x.size], 2 * self.levels + 1)

    def open(self, count: int, spec: TensorSpec, side: Reader) -> Opened:
        """Read one step per bucket."""
        steps = np.frombuffer(side.take(4 * self._buckets(count)), "<f4")
        if not self._fit(steps):
            raise NonFiniteError(
                f"{side.field}.steps", "NaN, infinity, or too large for its levels"
            )
        if (steps < 0).any():
            raise FormatError(f"{side.field}.steps", "negative")

        def restore(levels: NDArray[Any]) -> NDArray[Any]:
            values = levels.astype(np.float32) - np.float32(self.levels)
            # Not np.repeat: the sender names the bucket, which may be much larger than the tensor.
            whole = count - count % self.bucket
            rows = values[:whole].reshape(whole // self.bucket, self.bucket)
            rows *= steps[: len(rows), None]
            values[whole:] *= steps[-1:]
            return values

        return Opened(count, 2 * self.levels + 1, restore)

    def write_params(self, out: Writer) -> None:
        """Write the number of levels and the bucket size; a decoder needs no norm."""
        out.varint(self.levels)
        out.varint(self.bucket)

    @classmethod
    def read_params(cls, reader: Reader) -> Qsgd:
        """Read the number of levels and the bucket size."""
        levels, bucket = reader.varint(), reader.varint()
        if not (1 <= levels <= MAX_LEVELS and 1 <= bucket < 1 << 31):
            raise FormatError(f"{reader.field}.qsgd", f"{levels} levels in buckets of {bucket}")
        return cls(levels, bucket)

    def describe(self) -> str:
        """Return the name, levels and bucket size."""
        return f"qsgd {self.levels} levels, buckets of {self.bucket}"

    def _fit(self, steps: NDArray[Any]) -> bool:
        with np.errstate(over="ignore", invalid="ignore"):
            return bool(np.isfinite(steps * np.float32(self.levels)).all())

    def _buckets(self, count: int) -> int:
        return -(-count // self.bucket)
