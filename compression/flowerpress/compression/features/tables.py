"""The integers that both ends of a cut code features with."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.errors import (
    ConfigError,
    EncodeError,
    FormatError,
    LimitError,
    NonFiniteError,
)
from flowerpress.compression.features.apportion import TOTAL, apportion, smoothed_histogram, trimmed
from flowerpress.compression.features.flat import Flat
from flowerpress.compression.kernels import features as kernel
from flowerpress.compression.wire import Reader, Writer

__all__ = ["LARGEST_SYMBOL", "MOST_CHANNELS", "MOST_SYMBOLS", "Tables"]

LARGEST_SYMBOL = 1 << 30
MOST_CHANNELS = 4096
MOST_SYMBOLS = 1 << 20
"""Symbols with a frequency, of all channels together, that a receiver accepts by default."""

_FORMAT = 1
_FIELD = "tables"
_LARGEST_VERSION = (1 << 32) - 1


@dataclass(frozen=True, eq=False)
class Tables:
    """Integer frequencies of the symbols of C channels; what both ends of a cut code with.

    A channel's symbol ``s`` stands for ``step * s + centre``, in single precision, rounded after
    the product and after the sum.

    Args:
        version: 1 and up; a newer one replaces an older.
        lows: (C,) int32; the smallest symbol that has a frequency of its own.
        frequencies: C arrays of uint32, for ``low, low + 1, ...`` and last for the escape, which
            all other symbols share. Each is at least 1, and they sum to 65536.
        centres: (C,) float32.
        steps: (C,) float32, positive.

    Raises:
        ConfigError: anything else.
    """

    version: int
    lows: NDArray[np.int32]
    frequencies: tuple[NDArray[np.uint32], ...]
    centres: NDArray[np.float32]
    steps: NDArray[np.float32]

    def __post_init__(self) -> None:
        if not 1 <= self.version <= _LARGEST_VERSION:
            raise ConfigError(f"tables have a version from 1 to 2**32 - 1, not {self.version}")
        for name, dtype in (("lows", np.int32), ("centres", np.float32), ("steps", np.float32)):
            array = np.array(getattr(self, name), dtype)
            if array.shape != (self.channels,):
                raise ConfigError(
                    f"{name} has shape {array.shape}, and there are {self.channels} channels"
                )
            object.__setattr__(self, name, array)
        object.__setattr__(
            self, "frequencies", tuple(np.array(row, np.uint32) for row in self.frequencies)
        )
        for channel in range(self.channels):
            if problem := self._problem(channel):
                raise ConfigError(f"channel {channel} of the tables {problem}")

    def _problem(self, channel: int) -> str:
        """Return what is wrong with a channel; empty if nothing is."""
        row, low = self.frequencies[channel], int(self.lows[channel])
        if row.ndim != 1 or not row.size or not row.all() or int(row.sum(dtype=np.int64)) != TOTAL:
            return f"has frequencies that are not positive integers of sum {TOTAL}"
        if low < -LARGEST_SYMBOL or low + row.size - 1 > LARGEST_SYMBOL:
            return f"has symbols beyond {LARGEST_SYMBOL}"
        if not np.isfinite(self.centres[channel]):
            return f"is centred at {self.centres[channel]}"
        if not (np.isfinite(self.steps[channel]) and self.steps[channel] > 0):
            return f"has a step of {self.steps[channel]}; it must be positive"
        return ""

    @property
    def channels(self) -> int:
        """C."""
        return len(self.frequencies)

    @cached_property
    def digest(self) -> bytes:
        """16 bytes that tell these tables, version included, from all others."""
        return hashlib.sha256(self.to_bytes()).digest()[:16]

    @cached_property
    def flat(self) -> Flat:
        """The same frequencies as the coder's kernels take them; made once."""
        return Flat(self.lows, self.frequencies)

    @classmethod
    def from_probabilities(
        cls,
        version: int,
        lows: NDArray[np.int32],
        probabilities: Sequence[NDArray[np.float64]],
        centres: NDArray[np.float32],
        steps: NDArray[np.float32],
    ) -> Tables:
        """Return tables of the frequencies nearest to ``probabilities``.

        Args:
            version, lows, centres, steps: as of :class:`Tables`.
            probabilities: for each channel those of ``low, low + 1, ...``, and last the mass of
                all other symbols; they need not sum to 1. What is too rare at either end for a
                frequency of its own joins these.

        Raises:
            ConfigError: shapes that do not fit, or probabilities that are none.
        """
        try:
            kept = [
                trimmed(int(low), p) for low, p in zip(np.asarray(lows), probabilities, strict=True)
            ]
            frequencies = tuple(apportion(p) for _, p in kept)
        except ValueError as error:
            raise ConfigError(f"no tables can be made: {error}") from None
        first: NDArray[np.int32] = np.array([low for low, _ in kept], np.int32)
        return cls(version, first, frequencies, centres, steps)

    @classmethod
    def from_symbols(
        cls,
        version: int,
        symbols: NDArray[np.int32],
        centres: NDArray[np.float32],
        steps: NDArray[np.float32],
    ) -> Tables:
        """Return tables for symbols like ``symbols`` (C, N): smoothed histograms."""
        rows = [smoothed_histogram(row) for row in symbols]
        lows: NDArray[np.int32] = np.array([low for low, _ in rows], np.int32)
        return cls.from_probabilities(version, lows, [p for _, p in rows], centres, steps)

    def to_bytes(self) -> bytes:
        """Return the tables as they are sent; equal tables have equal bytes."""
        out = Writer()
        out.u8(_FORMAT)
        out.varint(self.version)
        out.varint(self.channels)
        for row, low, centre, step in zip(
            self.frequencies, self.lows.tolist(), self.centres, self.steps, strict=True
        ):
            out.f32(float(centre))
            out.f32(float(step))
            out.varint(2 * low if low >= 0 else -2 * low - 1)
            out.varint(row.size - 1)
            for f in row[:-1].tolist():
                out.varint(f - 1)
        return out.getvalue()

    @classmethod
    def from_bytes(
        cls,
        body: memoryview | bytes,
        *,
        max_channels: int = MOST_CHANNELS,
        max_symbols: int = MOST_SYMBOLS,
    ) -> Tables:
        """Return the tables that hostile bytes hold.

        Args:
            body: what ``to_bytes`` returned, or anything else.
            max_channels: the most channels to accept.
            max_symbols: the most frequencies to accept, of all channels together.

        Raises:
            WireError: cut off, longer than its own structure, larger than allowed, or with values
                that no tables have.
        """
        reader = Reader(body, _FIELD)
        if (form := reader.u8()) != _FORMAT:
            raise FormatError(_FIELD, f"have the unknown format {form}; the sender may be newer")
        version, channels = reader.varint(), reader.varint()
        if channels > max_channels:
            raise LimitError(_FIELD, f"{channels} channels, at most {max_channels} are accepted")
        lows, centres, steps = [], [], []
        frequencies = []
        for channel in range(channels):
            centres.append(reader.f32())
            steps.append(reader.f32())
            code, own = reader.varint(), reader.varint()
            if code > 2 * LARGEST_SYMBOL:
                raise FormatError(_FIELD, f"channel {channel} starts beyond {LARGEST_SYMBOL}")
            lows.append(-(code + 1 >> 1) if code & 1 else code >> 1)
            max_symbols -= own + 1
            if max_symbols < 0:
                raise LimitError(_FIELD, "more symbols than are accepted")
            row = [reader.varint() + 1 for _ in range(own)]
            if sum(row) >= TOTAL:
                raise FormatError(
                    _FIELD, f"frequencies of channel {channel} sum to more than 2**16"
                )
            frequencies.append(np.array([*row, TOTAL - sum(row)], np.uint32))
        reader.finish()
        try:
            return cls(
                version,
                np.array(lows, np.int32),
                tuple(frequencies),
                np.array(centres, np.float32),
                np.array(steps, np.float32),
            )
        except ConfigError as error:
            raise FormatError(_FIELD, str(error)) from None

    def quantize(self, y: NDArray[Any]) -> NDArray[np.int32]:
        """Return the symbols nearest to ``y``: (y - centre) / step, halves to even.

        Args:
            y: (B, C, ...) float32.

        Returns:
            (C, N) int32 with N = B times the extents behind C.

        Raises:
            EncodeError: another number of channels, NaN, infinity, or a symbol of 2**30 or more.
        """
        if y.ndim < 2 or y.shape[1] != self.channels:
            raise EncodeError(
                "features", f"shape {y.shape} where tables have {self.channels} channels"
            )
        rows = np.swapaxes(np.asarray(y, np.float32), 0, 1)
        scaled = rows.reshape(self.channels, -1)
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = scaled - self.centres[:, None]
            scaled /= self.steps[:, None]
        np.rint(scaled, out=scaled)
        if scaled.size and not (
            scaled.max() < LARGEST_SYMBOL and scaled.min() > -LARGEST_SYMBOL
        ):  # a NaN fails every comparison
            raise EncodeError(
                "features", "NaN, infinity, or a value of 2**30 steps; lower the learning rate"
            )
        return scaled.astype(np.int32)

    def restore(self, symbols: NDArray[np.int32], shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Return the values of ``symbols`` (C, N) as float32 (B, C, ...), of ``shape``.

        Raises:
            NonFiniteError: a symbol and a step so large that single precision overflows.
        """
        values = symbols.astype(np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            values *= self.steps[:, None]
            values += self.centres[:, None]
        if not np.isfinite(values).all():
            raise NonFiniteError("features", "decode to NaN or infinity")
        rows = values.reshape(shape[1], shape[0], *shape[2:])
        return np.ascontiguousarray(np.swapaxes(rows, 0, 1))

    def ideal_bits(self, symbols: NDArray[np.int32]) -> float:
        """Return the bits of ``symbols`` (C, N) by these frequencies: what no coder goes below.

        Minus the sum of log2(frequency / 65536), and what follows escapes.
        """
        totals = np.zeros(3)
        kernel.measure(
            np.ascontiguousarray(symbols, np.int32),
            self.flat.lows,
            self.flat.offsets,
            self.flat.costs,
            totals,
        )
        return float(totals[0] + totals[1])
