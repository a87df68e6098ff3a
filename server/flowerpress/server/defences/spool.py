"""Updates that wait on disk, so that a round needs the memory of one model."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression import Decoded, Dense, Sparse
from flowerpress.protos import Kind
from flowerpress.server.intake import Received

__all__ = ["Spool"]


@dataclass(frozen=True)
class _Stored:
    """Where one array of one tensor is: ``count`` elements from byte ``start`` on."""

    start: int
    count: int
    dtype: np.dtype[Any]


@dataclass(frozen=True)
class _Tensor:
    """A tensor of ``size`` elements: all of its values, or some with their positions."""

    values: _Stored
    positions: _Stored | None
    size: int


class Spool:
    """A temporary file of updates, each in the form in which it was decoded: sparse stays sparse.

    The file has no name and goes with the object.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the spool
        self._end = 0
        self._updates: list[tuple[Kind, int, dict[int, _Tensor]]] = []

    def __len__(self) -> int:
        return len(self._updates)

    def append(self, update: Received) -> None:
        """Write an update at the end of the file."""
        tensors = {}
        for index, decoded in update.decoded:
            if isinstance(decoded, Sparse):
                positions, values = self._write(decoded.positions), self._write(decoded.values)
                tensors[index] = _Tensor(values, positions, decoded.size)
            else:
                values = self._write(decoded.dense())
                tensors[index] = _Tensor(values, None, values.count)
        self._updates.append((update.kind, update.sequence, tensors))

    def __iter__(self) -> Iterator[Received]:
        """Read the updates back, in the order in which they came."""
        for kind, sequence, tensors in self._updates:
            decoded = tuple((i, self._decoded(t)) for i, t in tensors.items())
            yield Received(kind, decoded, sequence)

    def block(self, index: int, start: int, stop: int) -> NDArray[Any]:
        """Return elements ``start`` to ``stop`` of one tensor, a row for each update."""
        return np.stack([self._part(t[index], start, stop) for *_, t in self._updates])

    def close(self) -> None:
        """Give the disk space back."""
        self._file.close()

    def _write(self, array: NDArray[Any]) -> _Stored:
        stored = _Stored(self._end, array.size, array.dtype)
        self._file.seek(self._end)
        self._file.write(np.ascontiguousarray(array).data)
        self._end += array.nbytes
        return stored

    def _read(self, stored: _Stored, start: int, stop: int) -> NDArray[Any]:
        self._file.seek(stored.start + start * stored.dtype.itemsize)
        return np.frombuffer(self._file.read((stop - start) * stored.dtype.itemsize), stored.dtype)

    def _decoded(self, tensor: _Tensor) -> Decoded:
        values = self._read(tensor.values, 0, tensor.values.count)
        if tensor.positions is None:
            return Dense(values)
        positions = self._read(tensor.positions, 0, tensor.positions.count)
        return Sparse(positions, values, tensor.size)

    def _part(self, tensor: _Tensor, start: int, stop: int) -> NDArray[Any]:
        if tensor.positions is None:
            return self._read(tensor.values, start, stop)
        positions = self._read(tensor.positions, 0, tensor.positions.count)
        first, last = np.searchsorted(positions, (start, stop))
        out = np.zeros(stop - start, tensor.values.dtype)
        out[positions[first:last] - start] = self._read(tensor.values, int(first), int(last))
        return out
