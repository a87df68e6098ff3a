"""Points on their way to the server: what clients have measured, in a few hundred bytes.

Bytes and errors are sent as 16-bit logarithms, fine enough to choose by: bytes to 0.02%, errors as
a fraction of the tensor's energy to 0.04%.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.errors import FormatError, NonFiniteError, TruncatedError
from flowerpress.compression.rates.points import Points

__all__ = ["pack_points", "packed_length", "unpack_points"]

_FIELD = "points"
_NONE = 65535  # a setting that cannot code the tensor
_BYTES = 2000.0  # steps of a doubling
_ERRORS = 1500.0
_LEAST = 2.0**-24  # of the energy: what is less counts as nothing
_LARGEST_ENERGY = 1e300


def packed_length(tensors: int, settings: int) -> int:
    """Return the length in bytes of the points of so many tensors and settings."""
    return tensors * (8 + 4 * settings)


def pack_points(points: Points) -> bytes:
    """Return the numbers of ``points``; names and settings are known at the other end."""
    energies = points.energies[:, None]
    usable = np.isfinite(points.bytes)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        lost = np.where(energies > 0, points.errors / energies, 0.0)
        lengths = _BYTES * np.log2(1 + np.where(usable, points.bytes, 0))
        errors = _ERRORS * np.log2(1 + np.where(usable, lost, 0) / _LEAST)
    out = [points.energies.astype("<f8").tobytes()]
    for values in (lengths, errors):
        rounded = np.where(usable, np.minimum(np.rint(values), _NONE - 1), _NONE)
        out.append(rounded.astype("<u2").tobytes())
    return b"".join(out)


def unpack_points(
    body: bytes, names: Sequence[str], settings: Sequence[str], sizes: NDArray[np.int64]
) -> Points:
    """Return the points in ``body``.

    Args:
        body: hostile.
        names: of the tensors that were asked about, with ``sizes`` elements each.
        settings: that were asked about.

    Raises:
        WireError: another length, or numbers that nobody measures.
    """
    t, s = len(names), len(settings)
    if len(body) != packed_length(t, s):
        raise TruncatedError(_FIELD, f"{len(body)} bytes where {packed_length(t, s)} are due")
    energies = np.frombuffer(body, "<f8", t).astype(np.float64)
    if not ((energies >= 0) & (energies <= _LARGEST_ENERGY)).all():
        raise NonFiniteError(_FIELD, "an energy that is negative, NaN or infinite")
    lengths = np.frombuffer(body, "<u2", t * s, 8 * t).reshape(t, s).astype(np.float64)
    errors = np.frombuffer(body, "<u2", t * s, 8 * t + 2 * t * s).reshape(t, s).astype(np.float64)
    usable = lengths != _NONE
    if not np.array_equal(usable, errors != _NONE) or not usable.any(axis=1).all():
        raise FormatError(_FIELD, "a tensor that no setting can code, or only half measured")
    lost = (np.exp2(errors / _ERRORS) - 1) * _LEAST * energies[:, None]
    return Points(
        tuple(names),
        tuple(settings),
        np.where(usable, np.rint(np.exp2(lengths / _BYTES) - 1), np.inf),
        np.where(usable, lost, np.inf),
        energies,
        np.asarray(sizes, np.int64),
    )
