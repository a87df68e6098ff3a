"""The contract of a codec, and how bytes name one.

A codec turns one tensor into the body of a frame and back. Its *recipe* names it on the wire: a
codec tag, then whatever the decoder must know that is the same for every tensor. Tensors that
share a codec share its recipe, so a frame costs its body and two or three bytes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.decoded import Decoded
from flowerpress.compression.errors import EncodeError, FormatError
from flowerpress.compression.spec import TensorSpec
from flowerpress.compression.wire import Reader, Writer

__all__ = ["Codec", "Context", "encodable", "read_recipe", "recipe"]


@dataclass(frozen=True)
class Context:
    """What an encoder may use beside the tensor: state and randomness are arguments.

    ``rng`` is needed by stochastic codecs only; they raise ``EncodeError`` without it. All arrays
    have the tensor's shape but ``warm``. ``reference`` is a tensor like this one that the decoder
    holds, too, bit for bit, such as the previous global update. ``relevance`` scores every element
    (larger: rather kept) for codecs that select; they take magnitudes without it. ``warm`` is what
    ``Codec.warmth`` made of this tensor's previous body.
    """

    rng: np.random.Generator | None = None
    reference: NDArray[Any] | None = None
    relevance: NDArray[Any] | None = None
    warm: NDArray[np.float32] | None = None


class Codec(ABC):
    """Encodes one tensor at a time; immutable and free of state."""

    tag: ClassVar[int]

    @property
    @abstractmethod
    def lossless(self) -> bool:
        """Whether ``decode(encode(x))`` has the bits of ``x``."""

    @property
    @abstractmethod
    def biased(self) -> bool:
        """Whether the expected decoded value differs from ``x``: then use error feedback."""

    @abstractmethod
    def encode(self, x: NDArray[Any], spec: TensorSpec, context: Context) -> bytes:
        """Return the body of the frame for ``x``, an array with the shape of ``spec``.

        Raises:
            EncodeError: NaN, infinity, overflow, values that the tensor's dtype cannot hold, a
                lossy codec for a tensor of integers, or a missing generator.
        """

    @abstractmethod
    def decode(
        self, body: memoryview, spec: TensorSpec, reference: NDArray[Any] | None = None
    ) -> Decoded:
        """Return the values that ``body`` stands for; the body is not trusted.

        Args:
            body: what ``encode`` returned, or anything else.
            spec: the receiver's own.
            reference: what the encoder had as ``Context.reference``.

        Raises:
            WireError: the body is not one that an encoder writes for ``spec``, or was written with
                another reference.
        """

    def warmth(self, body: memoryview, spec: TensorSpec) -> NDArray[np.float32] | None:
        """Return what shortens the work on this tensor's next update: ``Context.warm`` then.

        It follows from the body alone, so it is state that can be stored and sent as such. None,
        unless a codec says otherwise.
        """
        del body, spec
        return None

    @abstractmethod
    def write_recipe(self, out: Writer) -> None:
        """Write what a decoder must know, after the codec tag."""

    @classmethod
    @abstractmethod
    def read_recipe(cls, reader: Reader) -> Codec:
        """Return the codec that ``write_recipe`` described.

        Raises:
            WireError: an unknown stage or parameters that no codec accepts.
        """

    @abstractmethod
    def describe(self) -> str:
        """Return a short text for people, such as ``top-k 1% > ternary > pack``."""


def recipe(codec: Codec) -> bytes:
    """Return the bytes that name ``codec`` on the wire."""
    out = Writer()
    out.varint(codec.tag)
    codec.write_recipe(out)
    return out.getvalue()


def read_recipe(body: memoryview, codecs: dict[int, type[Codec]]) -> Codec:
    """Return the codec that ``body`` names, one of ``codecs`` (tag -> class).

    Raises:
        WireError: an unknown tag, unknown parameters, or bytes left over.
    """
    reader = Reader(body, "recipe")
    tag = reader.varint()
    if tag not in codecs:
        raise FormatError("recipe", f"unknown codec tag {tag}; the sender may be newer")
    codec = codecs[tag].read_recipe(reader)
    reader.finish()
    return codec


def encodable(x: NDArray[Any], spec: TensorSpec) -> NDArray[Any]:
    """Return ``x`` flat and contiguous after checking its shape and that it is finite.

    Raises:
        EncodeError: another shape than ``spec``, NaN, infinity, or fractions for integers.
    """
    if x.shape != spec.shape:
        raise EncodeError(spec.name, f"shape {x.shape} where the model has {spec.shape}")
    flat = np.ascontiguousarray(x).reshape(-1)
    if spec.is_float and not np.isfinite(flat).all():
        raise EncodeError(
            spec.name, "NaN or infinity; lower the learning rate or clip the gradients"
        )
    if not spec.is_float and flat.dtype != spec.dtype:
        with np.errstate(invalid="ignore"):
            own = flat.astype(spec.dtype)
        if not np.array_equal(own, flat):
            raise EncodeError(spec.name, f"{flat.dtype} values that {spec.dtype} cannot hold")
        return own
    return flat
