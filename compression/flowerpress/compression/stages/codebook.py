"""Values replaced by the nearest of a few centroids: of the tensor, or of a group of values."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.clusters import lloyd, nearest_centroid, optimal
from flowerpress.compression.codec import Context
from flowerpress.compression.errors import ConfigError, EncodeError, FormatError, NonFiniteError
from flowerpress.compression.kernels.kmeans import lookup
from flowerpress.compression.spec import TensorSpec
from flowerpress.compression.stages.base import Form, Levels, Opened, Stage
from flowerpress.compression.wire import Reader, Writer

__all__ = ["Codebook", "GroupCodebook"]

LARGEST = 256
SMALLEST_GROUP = 16
LARGEST_GROUP = (1 << 31) - 1
_METHODS = {"lloyd": lloyd, "optimal": optimal}


class Codebook(Stage):
    """One-dimensional k-means of a tensor's values (Han et al., ICLR 2016, section 3).

    ``method`` is ``lloyd``, as in that paper, or ``optimal``. ``clusters`` is None in a stage that
    was read from bytes: it decodes and does not encode. Side information: the number of centroids
    minus one, then the centroids, ascending, float32.
    """

    tag = 8
    name = "codebook"
    takes = Form.VALUES
    gives = Form.LEVELS

    def __init__(self, clusters: int | None = 3, method: str = "lloyd") -> None:
        if clusters is not None:
            _check_clusters(clusters)
        if method not in _METHODS:
            raise ConfigError(f"method is {method!r}; it must be one of {', '.join(_METHODS)}")
        self.clusters = clusters
        self.method = method

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
        centroids = _METHODS[self.method](x, self.clusters)
        side.u8(centroids.size - 1)
        side.raw(centroids.astype("<f4").tobytes())
        return Levels(nearest_centroid(x, centroids), centroids.size)

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


class GroupCodebook(Stage):
    """The best k-means of every ``group`` values in a row, each with centroids of its own.

    The squared error is close to the least that ``clusters`` levels a group can have (Wang and
    Song, The R Journal 2011; see ``clusters.optimal``, here with 16 bins a cluster and at least
    256: 0.14% above the least was the most seen, of Cauchy values). Side information: for every
    group ``clusters`` centroids, float32, ascending; where a group needs fewer, the last one is
    repeated.
    """

    tag = 31
    name = "codebooks"
    takes = Form.VALUES
    gives = Form.LEVELS

    def __init__(self, clusters: int = 16, group: int = 4096) -> None:
        _check_clusters(clusters)
        if not SMALLEST_GROUP <= group <= LARGEST_GROUP:
            raise ConfigError(
                f"group is {group}; it must be from {SMALLEST_GROUP} to {LARGEST_GROUP}"
            )
        self.clusters = clusters
        self.group = group

    @property
    def alphabet(self) -> int:
        """One for each cluster."""
        return self.clusters

    def encode(
        self, x: NDArray[Any], spec: TensorSpec, context: Context, side: Writer
    ) -> NDArray[Any] | Levels:
        """Return the index of the nearest centroid of each value."""
        symbols = np.empty(x.size, np.uint8)
        for start in range(0, x.size, self.group):
            part = x[start : start + self.group]
            centroids = optimal(part, self.clusters, bins=max(256, 16 * self.clusters))
            side.raw(np.pad(centroids, (0, self.clusters - centroids.size), "edge").tobytes())
            symbols[start : start + part.size] = nearest_centroid(part, centroids)
        return Levels(symbols, self.clusters)

    def open(self, count: int, spec: TensorSpec, side: Reader) -> Opened:
        """Read the centroids of every group."""
        groups = -(-count // self.group)
        tables = np.frombuffer(side.take(4 * groups * self.clusters), "<f4").astype(np.float32)
        tables = tables.reshape(groups, self.clusters)
        if not np.isfinite(tables).all():
            raise NonFiniteError(f"{side.field}.centroids", "NaN or infinity")
        rises = tables[:, 1:] > tables[:, :-1]
        same = tables[:, 1:] == tables[:, :-1]
        if not (rises | same).all() or (rises[:, 1:] & ~rises[:, :-1]).any():
            raise FormatError(f"{side.field}.centroids", "not ascending")

        def restore(levels: NDArray[Any]) -> NDArray[Any]:
            out = np.empty(count, np.float32)
            lookup(levels, tables, min(self.group, max(count, 1)), out)
            return out

        return Opened(count, self.clusters, restore)

    def write_params(self, out: Writer) -> None:
        """Write the number of clusters less one, and the size of a group."""
        out.u8(self.clusters - 1)
        out.varint(self.group)

    @classmethod
    def read_params(cls, reader: Reader) -> GroupCodebook:
        """Read the number of clusters and the size of a group."""
        clusters, group = reader.u8() + 1, reader.varint()
        if not SMALLEST_GROUP <= group <= LARGEST_GROUP:
            raise FormatError(f"{reader.field}.codebooks", f"groups of {group}")
        return cls(clusters, group)

    def describe(self) -> str:
        """Return the number of clusters and the size of a group."""
        return f"{self.clusters}-means, groups of {self.group}"


def _check_clusters(clusters: int) -> None:
    if not 1 <= clusters <= LARGEST:
        raise ConfigError(f"clusters is {clusters}; it must be from 1 to {LARGEST}")
