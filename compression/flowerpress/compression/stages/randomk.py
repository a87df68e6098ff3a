"""Entries chosen by a seed that both ends expand."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.codec import Context
from flowerpress.compression.coders.base import LARGEST_ALPHABET
from flowerpress.compression.decoded import Sparse
from flowerpress.compression.errors import EncodeError, FormatError
from flowerpress.compression.kernels.sample import sample
from flowerpress.compression.spec import TensorSpec
from flowerpress.compression.stages.base import Form, Levels, Opened, Stage
from flowerpress.compression.stages.topk import check_density, kept
from flowerpress.compression.wire import Reader, Writer

__all__ = ["RandomK", "drawn"]


class RandomK(Stage):
    """Exactly ``k = max(1, round(density * n))`` entries, all subsets equally likely.

    No positions are sent: side information is k and a seed of 64 bits, drawn from the context's
    generator, from which :func:`drawn` makes the same positions on every machine (Konečný et al.,
    arXiv:1610.05492, section 2, "random mask"). ``unbiased`` scales the values by n / k before
    they are sent, so that E[decoded] = x (Wangni et al., NeurIPS 2018, section 2; Stich et al.,
    NeurIPS 2018, definition 2.2 for the other kind, which contracts and wants error feedback).
    ``density`` is None in a stage that was read from bytes: it decodes and does not encode.
    """

    tag = 14
    name = "randomk"
    takes = Form.TENSOR
    gives = Form.VALUES

    def __init__(self, density: float | None = 0.05, unbiased: bool = True) -> None:
        if density is not None:
            check_density(density)
        self.density = density
        self.unbiased = unbiased
        self.biased = not unbiased

    def encode(
        self, x: NDArray[Any], spec: TensorSpec, context: Context, side: Writer
    ) -> NDArray[Any] | Levels:
        """Return the drawn values in order of their positions."""
        if self.density is None:
            raise EncodeError(spec.name, "a random-k stage read from bytes cannot encode")
        if x.size > LARGEST_ALPHABET:
            raise EncodeError(spec.name, "more than 2**32 elements; send it with 'int8'")
        if context.rng is None:
            raise EncodeError(spec.name, "random-k is stochastic and was given no generator")
        k = kept(x.size, self.density)
        seed = int(context.rng.integers(0, 1 << 64, dtype=np.uint64))
        side.varint(k)
        side.raw(seed.to_bytes(8, "little"))
        values: NDArray[Any] = x[drawn(seed, k, x.size)]
        if self.unbiased and k:
            with np.errstate(over="ignore"):
                values = values * np.float32(x.size / k)
            if not np.isfinite(values).all():
                raise EncodeError(
                    spec.name, f"a value times {x.size / k:g} does not fit a float32; clip it"
                )
        return values

    def open(self, count: int, spec: TensorSpec, side: Reader) -> Opened:
        """Read k and the seed, and draw the positions."""
        k = side.varint()
        if count > LARGEST_ALPHABET:
            raise FormatError(f"{side.field}.positions", "of a tensor of more than 2**32 elements")
        if k > count:
            raise FormatError(f"{side.field}.k", f"{k} entries kept of {count}")
        where = drawn(int.from_bytes(side.take(8), "little"), k, count)
        return Opened(
            k, 0, lambda values: Sparse(where, values.astype(np.float32, copy=False), count)
        )

    @classmethod
    def read_params(cls, reader: Reader) -> RandomK:
        """Read nothing: a decoder needs neither density nor scaling."""
        return cls(None)

    def describe(self) -> str:
        """Return the name, the density in percent, and whether values are scaled."""
        if self.density is None:
            return "random-k"
        return f"random-k {100 * self.density:g}%{', scaled' if self.unbiased else ''}"


def drawn(seed: int, k: int, size: int) -> NDArray[np.int64]:
    """Return ``k`` of ``size`` (at most 2**32) positions, sorted; integers only, see the kernel."""
    out = np.empty(k, np.int64)
    sample(np.uint64(seed), size, out)
    return out
