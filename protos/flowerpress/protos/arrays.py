"""Flower's arrays as NumPy arrays without parsing and copying them each time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord
from numpy.typing import NDArray

__all__ = ["to_numpy", "to_record"]

_MAGIC = b"\x93NUMPY\x01\x00"


def to_numpy(record: ArrayRecord) -> dict[str, NDArray[Any]]:
    """Return the arrays of a record, read-only, in its order.

    Flower stores arrays as ``.npy`` files, whose header NumPy evaluates as Python text: most of the
    time for a small array. This process wrote most of them itself, with the dtype and shape that
    stand beside the data, so a view of the bytes will do where these agree with the header's size.
    """
    return {name: _view(array) for name, array in record.items()}


def to_record(arrays: Mapping[str, NDArray[Any]]) -> ArrayRecord:
    """Return ``arrays`` as a record in their order."""
    return ArrayRecord({name: Array(np.asarray(array)) for name, array in arrays.items()})


def _view(array: Array) -> NDArray[Any]:
    data = array.data
    if data[:8] != _MAGIC:
        return array.numpy()
    start = 10 + int.from_bytes(data[8:10], "little")
    header = data[10:start]
    try:
        dtype = np.dtype(array.dtype)
    except TypeError:  # a name that NumPy does not know, such as bfloat16
        return array.numpy()
    count = int(np.prod(array.shape, dtype=np.int64))
    simple = (
        count > 0
        and b"'fortran_order': False" in header
        and f"'descr': '{dtype.str}'".encode() in header
        and len(data) == start + count * dtype.itemsize
    )
    if not simple:
        return array.numpy()
    return np.frombuffer(data, dtype, count, start).reshape(array.shape)
