"""A tensor cut into blocks of rows, each with a codec of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.codec import Codec, Context, read_recipe, recipe
from flowerpress.compression.decoded import Decoded
from flowerpress.compression.errors import ConfigError, EncodeError, FormatError, LimitError
from flowerpress.compression.lowrank import LowRank
from flowerpress.compression.pipeline import Pipeline
from flowerpress.compression.plan import Coded
from flowerpress.compression.powersgd import PowerSgd
from flowerpress.compression.rd.codec import RateDistortion
from flowerpress.compression.spec import TensorSpec
from flowerpress.compression.wire import Reader, Writer

__all__ = ["MOST_GROUPS", "Blocks", "Grouped", "rows_of"]

MOST_GROUPS = 256
LONGEST_RECIPE = 480
"""What a receiver allows for the name, shape and recipe of a tensor is 512 bytes."""

# What a block may be coded with: every other codec.
_INNER: dict[int, type[Codec]] = {
    Pipeline.tag: Pipeline,
    PowerSgd.tag: PowerSgd,
    LowRank.tag: LowRank,
    RateDistortion.tag: RateDistortion,
}


@dataclass(frozen=True)
class Blocks:
    """What the blocks of a tensor decoded to, in order; ``sizes`` are their elements."""

    parts: tuple[Decoded, ...]
    sizes: tuple[int, ...]

    def dense(self) -> NDArray[Any]:
        """Return all elements, flat, as a new array."""
        return np.concatenate([part.dense() for part in self.parts])

    def add_to(self, total: NDArray[Any], weight: float = 1.0) -> None:
        """Add ``weight`` times the elements to the flat array ``total`` in place.

        Each block as it does it alone: one that is sparse stays so.
        """
        start = 0
        for part, size in zip(self.parts, self.sizes, strict=True):
            part.add_to(total[start : start + size], weight)
            start += size

    def is_finite(self) -> bool:
        """Whether no element is NaN or infinite."""
        return all(part.is_finite() for part in self.parts)


class Grouped(Codec):
    """Codes equal blocks of rows (indices of the first axis) with one codec each.

    Where one tensor holds most of a model's parameters its rows need not be worth the same: groups
    inside it are to rates what tensors are to a model. With n rows and g blocks the first n mod g
    blocks have one row more than the others; a scalar is one row, and blocks may be empty.

    Args:
        codecs: 1 to 256, none of them ``Grouped``, with recipes of at most 480 bytes together
            where equal neighbours count one byte.

    Raises:
        ConfigError: anything else.
    """

    tag = 5

    def __init__(self, codecs: Sequence[Codec]) -> None:
        self.codecs = tuple(codecs)
        if not 1 <= len(self.codecs) <= MOST_GROUPS:
            raise ConfigError(
                f"{len(self.codecs)} groups of rows; there must be from 1 to {MOST_GROUPS}"
            )
        if any(codec.tag not in _INNER for codec in self.codecs):
            raise ConfigError("groups of rows cannot hold groups of rows")
        out = Writer()
        self.write_recipe(out)
        if len(out) > LONGEST_RECIPE:
            raise ConfigError(
                f"the codecs of {len(self.codecs)} groups of rows take {len(out)} bytes to name, "
                f"at most {LONGEST_RECIPE} are accepted; use fewer groups"
            )

    @property
    def lossless(self) -> bool:
        """Whether every block arrives bit for bit."""
        return all(codec.lossless for codec in self.codecs)

    @property
    def biased(self) -> bool:
        """Whether some block's codec is."""
        return any(codec.biased for codec in self.codecs)

    def encode(self, x: NDArray[Any], spec: TensorSpec, context: Context) -> bytes:
        """Return the bodies of the blocks; each but the last after its length."""
        if x.shape != spec.shape:
            raise EncodeError(spec.name, f"shape {x.shape} where the model has {spec.shape}")
        bodies = []
        for codec, (start, stop) in zip(self.codecs, self._cuts(spec), strict=True):
            own = Context(
                context.rng,
                _rows(context.reference, start, stop),
                _rows(context.relevance, start, stop),
            )
            rows = _rows(x, start, stop)
            assert rows is not None
            bodies.append(codec.encode(rows, _block(spec, start, stop), own))
        return _joined(bodies)

    def decode(
        self, body: memoryview, spec: TensorSpec, reference: NDArray[Any] | None = None
    ) -> Blocks:
        """Return the blocks; none is made dense for it."""
        reader = Reader(body, f"frame[{spec.name!r}]")
        bodies = [*(reader.blob() for _ in self.codecs[1:]), reader.rest()]
        parts: list[Decoded] = []
        sizes: list[int] = []
        for codec, own, (start, stop) in zip(self.codecs, bodies, self._cuts(spec), strict=True):
            block = _block(spec, start, stop)
            parts.append(codec.decode(own, block, _rows(reference, start, stop)))
            sizes.append(block.size)
        return Blocks(tuple(parts), tuple(sizes))

    @staticmethod
    def join(coded: Sequence[Coded]) -> Coded:
        """Return the blocks of a tensor, coded one by one, as one coded tensor.

        Raises:
            ConfigError: what the constructor refuses.
        """
        return Coded(Grouped([each.codec for each in coded]), _joined([e.body for e in coded]))

    def write_recipe(self, out: Writer) -> None:
        """Write the number of blocks and each codec's recipe; nothing for one like the last."""
        out.varint(len(self.codecs))
        before = b""
        for codec in self.codecs:
            own = recipe(codec)
            out.blob(b"" if own == before else own)
            before = own

    @classmethod
    def read_recipe(cls, reader: Reader) -> Grouped:
        """Read what ``write_recipe`` wrote."""
        count = reader.varint()
        if not 1 <= count <= MOST_GROUPS:
            raise LimitError(
                reader.field, f"{count} groups of rows, 1 to {MOST_GROUPS} are accepted"
            )
        codecs: list[Codec] = []
        before = b""
        for _ in range(count):
            own = bytes(reader.blob())
            if not own and not codecs:
                raise FormatError(reader.field, "the first group of rows has no codec")
            if own == before:
                raise FormatError(reader.field, "a group of rows repeats the codec before it")
            codecs.append(read_recipe(memoryview(own), _INNER) if own else codecs[-1])
            before = own or before
        try:
            return cls(codecs)
        except ConfigError as error:
            raise FormatError(reader.field, str(error)) from error

    def describe(self) -> str:
        """Return the codecs in order, equal neighbours once with their number."""
        runs: list[tuple[str, int]] = []
        for codec in self.codecs:
            text = codec.describe()
            if runs and runs[-1][0] == text:
                runs[-1] = (text, runs[-1][1] + 1)
            else:
                runs.append((text, 1))
        return "rows: " + " | ".join(f"{n} x {text}" if n > 1 else text for text, n in runs)

    def _cuts(self, spec: TensorSpec) -> list[tuple[int, int]]:
        return rows_of(spec, len(self.codecs))


def rows_of(spec: TensorSpec, count: int) -> list[tuple[int, int]]:
    """Return the first row of each of ``count`` blocks, and the one after its last.

    A scalar has one row.
    """
    rows = spec.shape[0] if spec.shape else 1
    short, longer = divmod(rows, count)
    starts = [i * short + min(i, longer) for i in range(count + 1)]
    return list(pairwise(starts))


def _block(spec: TensorSpec, start: int, stop: int) -> TensorSpec:
    return TensorSpec(spec.name, (stop - start, *spec.shape[1:]), spec.dtype)


def _rows(x: NDArray[Any] | None, start: int, stop: int) -> NDArray[Any] | None:
    return None if x is None else np.atleast_1d(x)[start:stop]


def _joined(bodies: Sequence[bytes]) -> bytes:
    out = Writer()
    for body in bodies[:-1]:
        out.blob(body)
    out.raw(bodies[-1])
    return out.getvalue()
