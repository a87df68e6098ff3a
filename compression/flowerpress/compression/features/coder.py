"""One stream of bytes for the symbols of all channels: within half a percent of the ideal.

Body, empty when there are no symbols:

    u8       bits 0-2 log2 of the lanes (0-4), bit 3 whether there are escapes, the others 0
    varint   the bytes of the escapes, if there are any
    ...      states, six bytes each, little endian
    ...      words, two bytes each, little endian
    ...      escapes

A single lane starts in state 0 and reads no words once they are used up; without words, its state
is stored without leading zero bytes. Several lanes start in state 2**32.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.coders.base import check_status
from flowerpress.compression.errors import EncodeError, FormatError, TruncatedError
from flowerpress.compression.features.tables import LARGEST_SYMBOL, Tables
from flowerpress.compression.kernels import features as kernel
from flowerpress.compression.wire import Reader, Writer

__all__ = ["decode", "encode"]

_FIELD = "features"
_STATE_BYTES = kernel.STATE_BITS // 8
_START = 1 << 32
_ESCAPES = 8
_LANE_BITS = 7
# A lane stores up to six bytes more than it needs: a lane for every so many bytes keeps that below
# a quarter of a percent. Eight lanes hide the latency of a step.
_BYTES_PER_LANE = 3072
_MOST_LOG_LANES = 3
_LARGEST_LOG_LANES = 4  # that a decoder accepts


def encode(symbols: NDArray[np.int32], tables: Tables) -> bytes:
    """Return the stream of ``symbols`` (C, N) int32.

    Raises:
        EncodeError: another number of channels than the tables', or a symbol beyond +-2**30.
    """
    if symbols.ndim != 2 or symbols.shape[0] != tables.channels:
        raise EncodeError(
            _FIELD, f"symbols of shape {symbols.shape} for tables of {tables.channels} channels"
        )
    if not symbols.size:
        return b""
    if symbols.max() > LARGEST_SYMBOL or symbols.min() < -LARGEST_SYMBOL:
        raise EncodeError(_FIELD, "a symbol is beyond 2**30")
    rows = np.ascontiguousarray(symbols, np.int32)
    if not rows.flags.writeable:  # kernels are compiled for writable arrays only
        rows = rows.copy()
    flat = tables.flat
    totals = np.zeros(3)
    kernel.measure(rows, flat.lows, flat.offsets, flat.costs, totals)
    spent, behind, many = float(totals[0]), int(totals[1]), int(totals[2])
    lanes_wanted = max(1, int(spent) // (8 * _BYTES_PER_LANE))
    log_lanes = min(lanes_wanted.bit_length() - 1, _MOST_LOG_LANES)
    states: NDArray[np.int64] = np.full(1 << log_lanes, _START if log_lanes else 0, np.int64)
    words = np.empty(rows.size + 1, np.uint16)
    used = kernel.encode(
        rows,
        flat.lows,
        flat.offsets,
        flat.frequencies,
        flat.starts,
        flat.reciprocals,
        states,
        words,
    )
    escapes = np.zeros((behind + 7) // 8, np.uint8)
    if many:
        kernel.escape_encode(rows, flat.lows, flat.offsets, escapes)

    out = Writer()
    out.u8(log_lanes | (_ESCAPES if many else 0))
    if many:
        out.varint(escapes.size)
    stored = states.astype("<i8").view(np.uint8).reshape(-1, 8)[:, :_STATE_BYTES].tobytes()
    if log_lanes == 0 and used == words.size:
        stored = stored.rstrip(b"\0")
    out.raw(stored)
    out.raw(words[used:].astype("<u2", copy=False).tobytes())
    out.raw(escapes.tobytes())
    return out.getvalue()


def decode(body: memoryview | bytes, tables: Tables, count: int) -> NDArray[np.int32]:
    """Return (C, ``count``) int32 from a body that is not trusted.

    Allocates four bytes a symbol and a copy of the body; ``count`` is the receiver's own.

    Raises:
        WireError: a body that ``encode`` cannot have written. What decodes to other symbols is for
            a checksum to find.
    """
    if count < 0:
        raise ValueError(f"a count is 0 or more, not {count}")
    reader = Reader(body, _FIELD)
    out: NDArray[np.int32] = np.empty((tables.channels, count), np.int32)
    if not out.size:
        reader.finish()
        return out
    first = reader.u8()
    log_lanes = first & _LANE_BITS
    if first >= 2 * _ESCAPES or log_lanes > _LARGEST_LOG_LANES:
        raise FormatError(_FIELD, f"start with the unknown mode {first}")
    behind = reader.varint() if first & _ESCAPES else 0
    if first & _ESCAPES and not behind:
        raise FormatError(_FIELD, "announce escapes of no bytes")
    if behind > reader.remaining:
        raise TruncatedError(_FIELD, f"need {behind} bytes for escapes")
    states, words = _states_and_words(reader.take(reader.remaining - behind), 1 << log_lanes)
    flat = tables.flat
    many = np.zeros(1, np.int64)
    status = kernel.decode(
        words,
        states,
        _START if log_lanes else 0,
        flat.lows,
        flat.offsets,
        flat.bounds,
        flat.lookup,
        out,
        many,
    )
    check_status(status, _FIELD)
    if bool(many[0]) != bool(behind):
        raise FormatError(_FIELD, f"hold {many[0]} escapes in {behind} bytes")
    if behind:
        escapes = np.frombuffer(reader.rest(), np.uint8).copy()
        check_status(kernel.escape_decode(escapes, flat.lows, flat.offsets, out), _FIELD)
    return out


def _states_and_words(
    coded: memoryview, lanes: int
) -> tuple[NDArray[np.int64], NDArray[np.uint16]]:
    size = _STATE_BYTES * lanes
    if lanes == 1 and len(coded) < size:
        size = len(coded)
        if size and coded[size - 1] == 0:
            raise FormatError(_FIELD, "hold a state that is padded with zeros")
    if len(coded) < size:
        raise TruncatedError(_FIELD, f"need {size} bytes for states")
    if (len(coded) - size) % 2:
        raise FormatError(_FIELD, "hold half a word")
    raw = np.zeros(_STATE_BYTES * lanes, np.uint8)
    raw[:size] = np.frombuffer(coded[:size], np.uint8)
    padded = np.zeros((lanes, 8), np.uint8)
    padded[:, :_STATE_BYTES] = raw.reshape(lanes, _STATE_BYTES)
    states = padded.reshape(-1).view("<i8").astype(np.int64)
    return states, np.frombuffer(coded[size:], "<u2").astype(np.uint16)
