"""Planes of levels to bytes and back: contexts, then one interleaved rANS stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from math import frexp

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.errors import FormatError, TruncatedError
from flowerpress.compression.kernels import STATUS_OK
from flowerpress.compression.kernels.levels import encode_entries
from flowerpress.compression.rd.contexts import Model
from flowerpress.compression.wire import Reader, Writer

__all__ = ["Kind", "Plane", "decode", "encode", "plane"]

_STATE_BYTES = 6
_START = 1 << 32
# Each lane costs some bytes and saves time: so many lanes (as a logarithm) from so many bits on.
_LANES = ((8 * 4096, 3), (8 * 1024, 2), (8 * 256, 1))
_SAMPLE = 1 << 13


class Kind(Enum):
    """What a plane holds; planes of one kind in a stream share what was learned."""

    FACTOR = "factor"
    REST = "rest"


@dataclass(frozen=True)
class Plane:
    """Levels or points (m, n), and how many low bits of a magnitude are plain."""

    kind: Kind
    values: NDArray[np.int32]
    low: int


def plane(kind: Kind, levels: NDArray[np.int32]) -> Plane:
    """Return the plane of some levels, most of their magnitudes at most seven without low bits."""
    some = levels.reshape(-1)[:: max(1, levels.size // _SAMPLE)]
    mean = float(np.abs(some).mean()) if some.size else 0.0
    return Plane(kind, levels, max(0, frexp(mean)[1] - 1) if mean else 0)


def _models(signs: bool) -> dict[Kind, Model]:
    # A factor's row is one singular vector: what is to the left says more than the row above.
    return {Kind.FACTOR: Model(12, signs=True), Kind.REST: Model(8, signs=signs)}


def encode(planes: Sequence[Plane], *, signs: bool) -> tuple[int, bytes, list[float]]:
    """Return the logarithm of the number of lanes, the stream of all planes, and each one's bits.

    ``signs`` says whether the signs of the rest depend on their neighbours.
    """
    entries, ends = _entries(planes, signs)
    bits = [_bits(entries[start:end]) for start, end in pairwise([0, *ends])]
    lanes = next((lanes for least, lanes in _LANES if sum(bits) >= least), 0)
    # A single lane starts from zero, so that its state is as short as what it says.
    states = np.full(1 << lanes, _START if lanes else 0, np.uint64)
    words = np.empty(entries.size + 1, np.uint16)
    used = encode_entries(entries, states, words)
    out = Writer()
    if lanes:
        for state in states:
            out.raw(int(state).to_bytes(_STATE_BYTES, "little"))
    else:
        out.varint(int(states[0]))
    out.raw(words[used:].astype("<u2", copy=False).tobytes())
    return lanes, out.getvalue(), bits


def _bits(entries: NDArray[np.uint32]) -> float:
    """Return about how many bits some entries take."""
    some = entries[:: max(1, entries.size // _SAMPLE)]
    sampled = float((15 - np.log2((some & 32767) + 1.0)).sum())
    return sampled * entries.size / max(1, some.size)


def _entries(planes: Sequence[Plane], signs: bool) -> tuple[NDArray[np.uint32], list[int]]:
    # Plain bits are entries, too: two or so a magnitude where all have some, else few.
    room = sum(p.values.size * (4 if p.low else 1) for p in planes)
    room += room // 16 + 1024
    while True:
        entries = np.empty(room, np.uint32)
        models = _models(signs)
        ends: list[int] = []
        for p in planes:
            start = ends[-1] if ends else 0
            ends.append(models[p.kind].entries(p.values, p.low, entries, start))
            if ends[-1] < 0:
                break
        else:
            return entries[: ends[-1]], ends
        room *= 3


def decode(reader: Reader, lanes: int, planes: Sequence[Plane], *, signs: bool) -> None:
    """Fill each plane's points from the rest of ``reader``.

    Raises:
        WireError: the bytes are not what an encoder writes.
    """
    if lanes:
        text = bytes(reader.take(_STATE_BYTES << lanes))
        initial = [
            int.from_bytes(text[i : i + _STATE_BYTES], "little")
            for i in range(0, len(text), _STATE_BYTES)
        ]
    else:
        initial = [reader.varint()]
    if max(initial) >> 8 * _STATE_BYTES:
        raise FormatError(reader.field, "a coder's state is too large")
    states = np.array(initial, np.uint64)
    body = reader.rest()
    if len(body) % 2:
        raise TruncatedError(reader.field, "half a word at the end")
    words = np.zeros(len(body) // 2 + 1, np.uint16)
    words[:-1] = np.frombuffer(body, "<u2")
    cursor = np.zeros(2, np.int64)
    models = _models(signs)
    for p in planes:
        if models[p.kind].decode(words, states, cursor, p.low, p.values) != STATUS_OK:
            raise FormatError(reader.field, "a magnitude that no encoder writes")
    if cursor[0] != words.size - 1 or (states != (_START if lanes else 0)).any():
        raise FormatError(reader.field, "the coder does not end as every encoder starts")
