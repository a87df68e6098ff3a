"""Random rotation, then the best few levels for normal numbers: the same error for every input."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.codec import Context
from flowerpress.compression.errors import ConfigError, EncodeError, FormatError, NonFiniteError
from flowerpress.compression.kernels.hadamard import dequantize, quantize, rotate
from flowerpress.compression.spec import TensorSpec
from flowerpress.compression.stages.base import Form, Levels, Opened, Stage
from flowerpress.compression.wire import Reader, Writer

__all__ = ["NORMAL_LEVELS", "SCALES", "Eden", "pieces"]

# Positive centroids of the Lloyd-Max quantizer of N(0, 1) with 2, 4, 8 and 16 levels (Lloyd, IEEE
# Trans. IT 1982; Max, IRE Trans. IT 1960): start evenly spaced on [0, 3]; put thresholds halfway
# between neighbours and centroids at the mean between thresholds, (f(a) - f(b)) / (F(b) - F(a))
# with the density f and the distribution F, until nothing changes; round to nine digits.
NORMAL_LEVELS: tuple[tuple[float, ...], ...] = (
    (0.797884561,),
    (0.452780035, 1.510417608),
    (0.245094179, 0.756005281, 1.343909279, 2.151945705),
    (
        *(0.12839503, 0.388048299, 0.656759119, 0.942340456),
        *(1.256231197, 1.618046386, 2.069017227, 2.732589571),
    ),
)
SCALES = ("unbiased", "smallest")
SMALLEST_CHUNK = 6  # logarithms
LARGEST_CHUNK = 20
CHUNK = 13
_WHOLE = 4096
_BLOCK = 1 << 16  # numbers on which all steps are done before the next, so that they stay in cache
_F32 = np.finfo(np.float32)


@dataclass(frozen=True)
class Piece:
    """``number`` chunks of ``2**log`` numbers each, from ``start``; the last may be padded."""

    start: int
    log: int
    number: int


def pieces(count: int, log: int) -> list[Piece]:
    """Cut ``count`` numbers into chunks: as many of ``2**log`` as fit, then smaller ones.

    The rest is cut into falling powers of two down to 64, of which the last is padded: at most 63
    numbers are sent for nothing, where padding the whole to a power of two might double it.
    """
    number, rest = divmod(count, 1 << log)
    out = [Piece(0, log, number)] if number else []
    start = number << log
    while rest > 0:
        own = max(rest.bit_length() - 1, SMALLEST_CHUNK)
        out.append(Piece(start, own, 1))
        start += 1 << own
        rest -= 1 << own
    return out


class Eden(Stage):
    """EDEN (Vargaftik et al., ICML 2022, algorithm 1); DRIVE (NeurIPS 2021) with one bit.

    The values are cut into chunks, each is rotated at random, and its numbers, now close to normal
    whatever they were, are rounded to the nearest of ``2**bits`` levels and scaled: ``unbiased``
    by ||x||^2 / <c, x>, for an expected squared error of .571, .133, .0358, .0096 of ||x||^2 with
    1, 2, 3, 4 bits; ``smallest`` by <c, x> / ||c||^2 for the smallest error, .363, .117, .0345,
    .0095, and a bias. With ``bits`` below one, one bit is sent for that share of the rotated
    numbers (the paper's section on sub-bit compression), with an error of pi / (2 bits) - 1.

    The papers prove unbiasedness for uniform rotations and use one transform with random signs.
    That leaves inputs with few large entries far from normal, and biased; a second transform (the
    default, ``rotations=2``) brings these to the same error.

    Side information: a seed of 8 bytes, then one float32 scale a chunk.
    """

    tag = 30
    name = "eden"
    takes = Form.VALUES
    gives = Form.LEVELS

    def __init__(
        self,
        bits: float = 2.0,
        scale: str = "unbiased",
        rotations: int = 2,
        chunk: int = CHUNK,
    ) -> None:
        if not (bits in (1, 2, 3, 4) or 1 / _WHOLE <= bits < 1):
            raise ConfigError(f"bits is {bits:g}; it must be 1, 2, 3, 4, or a fraction of one bit")
        if scale not in SCALES:
            raise ConfigError(f"scale is {scale!r}; it must be one of {', '.join(SCALES)}")
        if rotations not in (1, 2):
            raise ConfigError(f"rotations is {rotations}; it must be 1 or 2")
        if not SMALLEST_CHUNK <= chunk <= LARGEST_CHUNK:
            raise ConfigError(
                f"chunk is {chunk}; it is a logarithm from {SMALLEST_CHUNK} to {LARGEST_CHUNK}"
            )
        self.bits = max(1, int(bits))
        self.share = min(_WHOLE, round(bits * _WHOLE))  # of _WHOLE
        self.rotations = rotations
        self.chunk = chunk
        self.scale = scale
        self.biased = scale != "unbiased"

    @property
    def alphabet(self) -> int:
        """Levels, negative ones first."""
        return 1 << self.bits

    def encode(
        self, x: NDArray[Any], spec: TensorSpec, context: Context, side: Writer
    ) -> NDArray[Any] | Levels:
        """Return the nearest level of each rotated number that is kept."""
        if context.rng is None:
            raise EncodeError(spec.name, "eden rotates at random and was given no generator")
        plan = pieces(x.size, self.chunk)
        symbols = np.empty(sum(p.number * self._kept(p) for p in plan), np.uint8)
        if not x.size:
            return Levels(symbols, self.alphabet)
        seed = context.rng.bytes(8)
        centroids = np.array(NORMAL_LEVELS[self.bits - 1], np.float64)
        thresholds = ((centroids[1:] + centroids[:-1]) / 2).astype(np.float32)
        scales = []
        for piece, start, number, out in self._blocks(plan, symbols):
            rows = np.zeros((number, 1 << piece.log), np.float32)
            part = x[start : start + rows.size]
            rows.reshape(-1)[: part.size] = part
            # Powers of two change no digit, and neither squares nor sums can overflow then.
            largest = np.maximum(rows.max(axis=1), -rows.min(axis=1))
            exponents = np.clip(np.frexp(largest)[1], -126, 126)
            rows *= np.exp2(-exponents.astype(np.float32))[:, None]
            sums = np.empty((number, 3), np.float64)
            flat, kept = rows.reshape(-1), self._kept(piece)
            rotate(flat, rows.shape[1], start, _seed(seed), self.rotations)
            quantize(flat, rows.shape[1], kept, centroids, thresholds, out, sums)
            scales.append(self._scales(piece, exponents, sums, spec))
        side.raw(seed)
        side.raw(np.concatenate(scales).astype("<f4").tobytes())
        return Levels(symbols, self.alphabet)

    def open(self, count: int, spec: TensorSpec, side: Reader) -> Opened:
        """Read the seed and the scales."""
        plan = pieces(count, self.chunk)
        seed = bytes(side.take(8)) if count else bytes(8)
        scales = np.frombuffer(side.take(4 * sum(p.number for p in plan)), "<f4")
        if not np.isfinite(scales).all():
            raise NonFiniteError(f"{side.field}.scales", "NaN or infinity")
        if (scales < 0).any():
            raise FormatError(f"{side.field}.scales", "negative")

        def restore(symbols: NDArray[Any]) -> NDArray[Any]:
            positive = np.array(NORMAL_LEVELS[self.bits - 1], np.float32)
            levels = np.concatenate([-positive[::-1], positive])
            values = np.empty(count, np.float32)
            done = 0
            for piece, start, number, own in self._blocks(plan, symbols):
                rows = np.empty((number, 1 << piece.log), np.float32)
                flat = rows.reshape(-1)
                dequantize(own, levels, rows.shape[1], self._kept(piece), flat)
                rotate(flat, rows.shape[1], start, _seed(seed), -self.rotations)
                rows *= np.float32(2.0 ** -(piece.log * self.rotations // 2))
                with np.errstate(over="ignore", invalid="ignore"):
                    rows *= scales[done : done + number, None].astype(np.float32)
                done += number
                values[start : start + flat.size] = flat[: count - start]
            return values

        return Opened(sum(p.number * self._kept(p) for p in plan), self.alphabet, restore)

    def write_params(self, out: Writer) -> None:
        """Write bits, rotations and scale in one byte, the chunk's logarithm, the share."""
        out.u8(self.bits - 1 | (self.rotations - 1) << 2 | self.biased << 3)
        out.u8(self.chunk)
        out.varint(self.share)

    @classmethod
    def read_params(cls, reader: Reader) -> Eden:
        """Read what ``write_params`` wrote."""
        first, chunk, share = reader.u8(), reader.u8(), reader.varint()
        bits = (first & 3) + 1
        if (
            first > 15
            or not SMALLEST_CHUNK <= chunk <= LARGEST_CHUNK
            or not 1 <= share <= _WHOLE
            or (bits > 1 and share < _WHOLE)
        ):
            raise FormatError(
                f"{reader.field}.eden", f"flags {first}, chunks of 2**{chunk}, share {share}"
            )
        return cls(bits * share / _WHOLE, SCALES[first >> 3], (first >> 2 & 1) + 1, chunk)

    def describe(self) -> str:
        """Return the paper's name and the bits."""
        name = "drive" if self.bits == 1 and self.share == _WHOLE else "eden"
        bits = self.bits * self.share / _WHOLE
        return f"{name} {bits:g} bit{'s' if bits != 1 else ''}{', biased' if self.biased else ''}"

    def _kept(self, piece: Piece) -> int:
        """How many rotated numbers of a chunk are sent."""
        return -(-((1 << piece.log) * self.share) // _WHOLE)

    def _blocks(
        self, plan: list[Piece], symbols: NDArray[Any]
    ) -> Iterator[tuple[Piece, int, int, NDArray[Any]]]:
        """Yield the piece, the first number, how many chunks, and their symbols."""
        done = 0
        for piece in plan:
            each = max(1, _BLOCK >> piece.log)
            for first in range(0, piece.number, each):
                number = min(each, piece.number - first)
                size = number * self._kept(piece)
                yield (
                    piece,
                    piece.start + (first << piece.log),
                    number,
                    symbols[done : done + size],
                )
                done += size

    def _scales(
        self,
        piece: Piece,
        exponents: NDArray[np.integer[Any]],
        sums: NDArray[np.float64],
        spec: TensorSpec,
    ) -> NDArray[np.float32]:
        """Return a scale a chunk; rotations are not normalized, and this makes up for it."""
        steps = piece.log * self.rotations
        energy, dot, square = sums.T
        up, down = (energy, dot) if self.scale == "unbiased" else (dot, square)
        # Nothing kept, or nothing there: zeros.
        ratio = np.divide(up, down, out=np.zeros_like(up), where=(down > 0) & (dot > 0))
        ratio *= np.exp2(exponents - steps / 2)
        if (ratio * np.sqrt(square) > float(_F32.max) * (1 - 2.0**-20)).any():
            raise EncodeError(spec.name, "a chunk's norm does not fit a float32")
        single: NDArray[np.float32] = (ratio * math.sqrt(2.0) ** -(steps % 2)).astype(np.float32)
        return single


def _seed(seed: bytes) -> np.uint64:
    return np.uint64(int.from_bytes(seed, "little"))
