"""Whole rows of a tensor: rows of an embedding, filters of a convolution."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.codec import Context
from flowerpress.compression.coders.base import LARGEST_ALPHABET
from flowerpress.compression.decoded import Decoded, Dense, Sparse
from flowerpress.compression.errors import EncodeError, FormatError
from flowerpress.compression.kernels.formats import peaks
from flowerpress.compression.positions import decode_positions, encode_positions
from flowerpress.compression.spec import TensorSpec
from flowerpress.compression.stages.base import Form, Levels, Opened, Stage
from flowerpress.compression.stages.topk import check_density, kept, relevance
from flowerpress.compression.wire import Reader, Writer

__all__ = ["LargestRows", "Rows"]

# Above this share of rows, positions of single elements take more memory than all elements do.
_SPARSE = 1 / 4


class Rows(Stage):
    """The rows (indices of the first axis) that hold anything but zeros, and where they are.

    Most rows of an embedding are untouched by a client's update; they cost their share of a gap
    and no more (sparse variables: Kim et al., EuroSys 2019, section 2.2). Nothing is lost: biased
    is what codes the values. Side information: the number of kept rows and their positions.
    """

    tag = 15
    name = "rows"
    takes = Form.TENSOR
    gives = Form.VALUES
    biased = False

    def choose(self, x: NDArray[Any], spec: TensorSpec, context: Context) -> NDArray[np.int64]:
        """Return the sorted rows of ``x`` (rows, length) to keep; subclasses choose otherwise."""
        tops = np.empty(x.shape[0], np.uint32)
        peaks(x.reshape(-1).view(np.uint32), x.shape[1], tops)
        return np.flatnonzero(tops)

    def encode(
        self, x: NDArray[Any], spec: TensorSpec, context: Context, side: Writer
    ) -> NDArray[Any] | Levels:
        """Return the values of the kept rows, row by row."""
        rows = _rows(spec)
        if rows > LARGEST_ALPHABET:
            raise EncodeError(spec.name, "more than 2**32 rows; send it with 'int8'")
        if not rows:
            side.varint(0)
            side.blob(b"")
            return x
        matrix = x.reshape(rows, -1)
        where = self.choose(matrix, spec, context)
        side.varint(where.size)
        side.blob(encode_positions(where, rows))
        return x if where.size == rows else matrix[where].reshape(-1)

    def open(self, count: int, spec: TensorSpec, side: Reader) -> Opened:
        """Read the number of rows and their positions."""
        k, rows = side.varint(), _rows(spec)
        if rows > LARGEST_ALPHABET:
            raise FormatError(f"{side.field}.positions", "of a tensor of more than 2**32 rows")
        if k > rows:
            raise FormatError(f"{side.field}.rows", f"{k} rows kept of {rows}")
        where = decode_positions(Reader(side.blob(), f"{side.field}.positions"), k, rows)
        length = count // rows if rows else 0

        def restore(values: NDArray[Any]) -> Decoded:
            single = values.astype(np.float32, copy=False)
            if k == rows:
                return Dense(single)
            if k <= rows * _SPARSE:
                cells = where[:, None] * length + np.arange(length)
                return Sparse(cells.reshape(-1), single, count)
            out = np.zeros((rows, length), np.float32)
            out[where] = single.reshape(k, length)
            return Dense(out.reshape(-1))

        return Opened(k * length, 0, restore)

    def describe(self) -> str:
        """Return what is kept."""
        return "rows that are not zero"


class LargestRows(Rows):
    """Exactly ``max(1, round(density * rows))`` rows of largest l2 norm, ties by index.

    The choice of least squared error for a number of rows or filters; Li et al., ICLR 2017,
    section 3.1, rank filters by their l1 norm. Where the caller gave a relevance, the rows with
    the largest sum of it are kept instead. Biased: needs error feedback.
    """

    name = "largest-rows"
    biased = True

    def __init__(self, density: float = 0.1) -> None:
        check_density(density)
        self.density = density

    def choose(self, x: NDArray[Any], spec: TensorSpec, context: Context) -> NDArray[np.int64]:
        """Return the rows of largest norm, or of largest relevance."""
        scores = relevance(spec, context)
        if scores is None:
            ranks = np.einsum("ij,ij->i", x, x, dtype=np.float64)
        else:
            with np.errstate(invalid="ignore"):
                ranks = scores.reshape(x.shape).sum(axis=1, dtype=np.float64)
            if np.isnan(ranks).any():
                raise EncodeError(spec.name, "a row is to be kept always and never: infinities")
        return np.sort(np.argsort(-ranks, kind="stable")[: kept(ranks.size, self.density)])

    def describe(self) -> str:
        """Return the density in percent."""
        return f"largest {100 * self.density:g}% of rows"


def _rows(spec: TensorSpec) -> int:
    """Return the number of rows: none of an empty tensor, one of a scalar."""
    if not spec.size:
        return 0
    return spec.shape[0] if spec.shape else 1
