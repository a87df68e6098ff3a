"""Some entries of a tensor and nothing else: which ones, and where they are."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.codec import Context
from flowerpress.compression.coders.base import LARGEST_ALPHABET
from flowerpress.compression.decoded import Sparse
from flowerpress.compression.errors import ConfigError, EncodeError, FormatError, UnknownNameError
from flowerpress.compression.kernels.select import best, largest, order_keys
from flowerpress.compression.positions import PositionMode, decode_positions, encode_positions
from flowerpress.compression.spec import TensorSpec
from flowerpress.compression.stages.base import Form, Levels, Opened, Stage
from flowerpress.compression.wire import Reader, Writer

__all__ = ["TopK", "check_density", "kept", "relevance"]


class TopK(Stage):
    """Exactly ``k = max(1, round(density * n))`` entries of largest magnitude, ties by index.

    Side information: k and the positions (gap coded, or what is smaller; ``positions`` may name
    one mode). ``density`` is None in a stage that was read from bytes: it decodes and does not
    encode. Where the caller gave a relevance, that selects instead of the magnitudes. Source: Aji
    and Heafield, EMNLP 2017, section 3, with exact k per tensor. Biased: needs error feedback
    (Stich et al., NeurIPS 2018).
    """

    tag = 4
    name = "topk"
    takes = Form.TENSOR
    gives = Form.VALUES

    def __init__(self, density: float | None = 0.01, positions: str = "smallest") -> None:
        if density is not None:
            check_density(density)
        if positions not in get_args(PositionMode):
            raise UnknownNameError("position mode", positions, get_args(PositionMode))
        self.density = density
        self.positions: PositionMode = positions  # type: ignore[assignment]

    def choose(self, x: NDArray[Any], spec: TensorSpec, context: Context) -> NDArray[np.int64]:
        """Return the sorted positions to keep of flat ``x``; subclasses choose otherwise."""
        if self.density is None:
            raise EncodeError(spec.name, "a top-k stage read from bytes cannot encode")
        scores = relevance(spec, context)
        k = kept(x.size, self.density)
        return largest(x, k) if scores is None else best([order_keys(scores)], k)[0]

    def encode(
        self, x: NDArray[Any], spec: TensorSpec, context: Context, side: Writer
    ) -> NDArray[Any] | Levels:
        """Return the kept values in order of their positions."""
        if x.size > LARGEST_ALPHABET:
            raise EncodeError(spec.name, "more than 2**32 elements; send it with 'int8'")
        where = self.choose(x, spec, context)
        side.varint(where.size)
        side.blob(encode_positions(where, x.size, self.positions))
        return x[where]

    def open(self, count: int, spec: TensorSpec, side: Reader) -> Opened:
        """Read k and the positions."""
        k = side.varint()
        if count > LARGEST_ALPHABET:
            raise FormatError(f"{side.field}.positions", "of a tensor of more than 2**32 elements")
        if k > count:
            raise FormatError(f"{side.field}.k", f"{k} entries kept of {count}")
        where = decode_positions(Reader(side.blob(), f"{side.field}.positions"), k, count)
        return Opened(
            k, 0, lambda values: Sparse(where, values.astype(np.float32, copy=False), count)
        )

    @classmethod
    def read_params(cls, reader: Reader) -> TopK:
        """Read nothing: a decoder needs no density."""
        return cls(None)

    def describe(self) -> str:
        """Return the name and the density in percent."""
        return "top-k" if self.density is None else f"top-k {100 * self.density:g}%"


def kept(n: int, density: float) -> int:
    """Return how many of ``n`` entries a density keeps: at least one of any tensor that has one."""
    return min(n, max(1, round(density * n)))


def check_density(density: float) -> None:
    """Raise ``ConfigError`` unless ``density`` is a share of entries that may be kept."""
    if not 0 < density <= 1:
        raise ConfigError(f"density is {density}; it must be above 0 and at most 1")


def relevance(spec: TensorSpec, context: Context) -> NDArray[np.float32] | None:
    """Return the caller's scores, flat and in single precision, or None where there are none.

    Infinities are allowed: always, or never, keep this entry.

    Raises:
        EncodeError: another shape than the tensor's, or NaN.
    """
    if context.relevance is None:
        return None
    if context.relevance.shape != spec.shape:
        raise EncodeError(
            spec.name, f"relevance of shape {context.relevance.shape} for a tensor {spec.shape}"
        )
    with np.errstate(over="ignore"):
        scores = np.ascontiguousarray(context.relevance, np.float32).reshape(-1)
    if np.isnan(scores).any():
        raise EncodeError(spec.name, "relevance holds NaN; score every element with a number")
    return scores
