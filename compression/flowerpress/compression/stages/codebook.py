"""Values replaced by the nearest of a few centroids."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.codec import Context
from flowerpress.compression.errors import ConfigError, EncodeError, FormatError, NonFiniteError
from flowerpress.compression.spec import TensorSpec
from flowerpress.compression.stages.base import Form, Levels, Opened, Stage
from flowerpress.compression.wire import Reader, Writer

__all__ = ["Codebook", "lloyd"]

ROUNDS = 100
LARGEST = 256


class Codebook(Stage):
    """One-dimensional k-means of a tensor's values (Han et al., ICLR 2016, section 3).

    ``clusters`` is None in a stage that was read from bytes: it decodes and does not encode.
    Side information: the number of centroids minus one, then the centroids, ascending, float32.
    """

    tag = 8
    name = "codebook"
    takes = Form.VALUES
    gives = Form.LEVELS

    def __init__(self, clusters: int | None = 3) -> None:
        if clusters is not None and not 1 <= clusters <= LARGEST:
            raise ConfigError(f"clusters is {clusters}; it must be from 1 to {LARGEST}")
        self.clusters = clusters

    @property
    def alphabet(self) -> int:
        """One for each cluster."""
        return self.clusters or LARGEST

    def encode(
        self, x: NDArray[Any], spec: TensorSpec, context: Context, side: Writer
    ) -> NDArray[Any] | Levels:
        """Return the index of the nearest centroid of each value."""
        if self.clusters is None:
            raise EncodeError(spec.name, "a codebook read from bytes cannot encode")
        centroids = lloyd(x, self.clusters)
        side.u8(centroids.size - 1)
        side.raw(centroids.astype("<f4").tobytes())
        # In double precision: half the sum of two neighbours is then exact, or rounds above floats.
        wide = centroids.astype(np.float64)
        middles = (wide[1:] + wide[:-1]) / 2
        return Levels(np.searchsorted(middles, x).astype(np.uint8), centroids.size)

    def open(self, count: int, spec: TensorSpec, side: Reader) -> Opened:
        """Read the centroids."""
        size = side.u8() + 1
        centroids = np.frombuffer(side.take(4 * size), "<f4").astype(np.float32)
        if not np.isfinite(centroids).all():
            raise NonFiniteError(f"{side.field}.centroids", "NaN or infinity")
        if (centroids[1:] <= centroids[:-1]).any():
            raise FormatError(f"{side.field}.centroids", "not ascending")
        return Opened(count, size, lambda levels: centroids[levels])

    @classmethod
    def read_params(cls, reader: Reader) -> Codebook:
        """Read nothing: the centroids tell."""
        return cls(None)

    def describe(self) -> str:
        """Return the name and the number of clusters."""
        return "k-means" if self.clusters is None else f"{self.clusters}-means"


def lloyd(x: NDArray[Any], clusters: int) -> NDArray[np.float32]:
    """Return at most ``clusters`` distinct ascending centroids of the flat array ``x``.

    Lloyd's iteration (IEEE Trans. IT 1982) from evenly spaced starts, exact on sorted values with
    prefix sums: each round costs ``clusters`` binary searches. Deterministic.
    """
    if not x.size:
        return np.zeros(1, np.float32)
    values = np.sort(x.astype(np.float64))
    sums = np.concatenate([[0.0], values.cumsum()])
    centroids = np.unique(np.linspace(values[0], values[-1], clusters))
    for _ in range(ROUNDS):
        edges = np.searchsorted(values, (centroids[1:] + centroids[:-1]) / 2)
        bounds = np.concatenate([[0], edges, [values.size]])
        sizes = np.diff(bounds)
        means = np.diff(sums[bounds])[sizes > 0] / sizes[sizes > 0]
        if means.size == centroids.size and np.array_equal(means, centroids):
            break
        centroids = means
    return np.unique(centroids.astype(np.float32))
