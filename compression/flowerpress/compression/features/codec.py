"""Features and gradients to bytes and back.

Arrays are float32 with the batch first and channels second, (B, C, ...). A whole batch is one
body: a stream of its own for every sample would cost some bytes each.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.codec import Context, read_recipe, recipe
from flowerpress.compression.errors import EncodeError, ManifestError, NonFiniteError, WireError
from flowerpress.compression.features import coder
from flowerpress.compression.features.tables import Tables
from flowerpress.compression.frames import CODECS
from flowerpress.compression.presets import preset
from flowerpress.compression.spec import Manifest, TensorSpec
from flowerpress.compression.wire import Reader, Writer

__all__ = ["FeatureCodec", "PresetCodec", "TableCodec", "feature_codec"]

_NAME = "features"


class FeatureCodec(ABC):
    """Codes arrays (B, C, ...); immutable."""

    @abstractmethod
    def encode(self, y: NDArray[np.float32], rng: np.random.Generator | None = None) -> bytes:
        """Return the body of ``y`` (B, C, ...) float32; ``rng`` is for stochastic rounding.

        Raises:
            EncodeError: NaN, infinity, overflow, another shape than the codec is for, or no
                generator where one is needed.
        """

    @abstractmethod
    def decode(self, body: memoryview | bytes, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Return the array of ``shape``, the receiver's own, from a body that is not trusted.

        Both ends get the same bits from the same body.

        Raises:
            WireError: the body is not one that ``encode`` writes for this shape, or decodes to NaN
                or infinity.
        """


class TableCodec(FeatureCodec):
    """Rounds to the steps of ``tables`` and codes by their frequencies."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables

    def encode(self, y: NDArray[np.float32], rng: np.random.Generator | None = None) -> bytes:
        """Return the coded symbols."""
        del rng
        return coder.encode(self.tables.quantize(y), self.tables)

    def decode(self, body: memoryview | bytes, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Return step * symbol + centre."""
        if len(shape) < 2 or shape[1] != self.tables.channels:
            raise ManifestError(
                _NAME, f"shape {shape} for tables of {self.tables.channels} channels"
            )
        count = shape[0] * math.prod(shape[2:])
        return self.tables.restore(coder.decode(body, self.tables, count), shape)


class PresetCodec(FeatureCodec):
    """Any preset of model updates, such as ``int8(stochastic=true)``, for features or gradients.

    The array is coded with channels first, so that a scale "per output channel" is one per feature
    channel, over all samples of the batch. The body names its codec: a decoder needs no text.

    Raises:
        UnknownNameError, ConfigError: ``text`` names no preset, or one that cannot be built.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._preset = preset(text)

    def encode(self, y: NDArray[np.float32], rng: np.random.Generator | None = None) -> bytes:
        """Return the codec's recipe, a blob, and the body of the frame."""
        if y.ndim < 2:
            raise EncodeError(_NAME, f"shape {y.shape} has no axis of channels")
        rows = np.ascontiguousarray(np.swapaxes(np.asarray(y, np.float32), 0, 1))
        manifest = Manifest((_spec(rows.shape),))
        (coded,) = self._preset.plan(manifest).encode(manifest, [rows], [Context(rng)])
        out = Writer()
        out.blob(recipe(coded.codec))
        out.raw(coded.body)
        return out.getvalue()

    def decode(self, body: memoryview | bytes, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Read the recipe, then what it says."""
        if len(shape) < 2:
            raise ManifestError(_NAME, f"shape {shape} has no axis of channels")
        spec = _spec((shape[1], shape[0], *shape[2:]))
        reader = Reader(body, _NAME)
        try:
            codec = read_recipe(reader.blob(), CODECS)
            decoded = codec.decode(reader.rest(), spec)
        except WireError as error:
            if _NAME in error.field:
                raise
            raise type(error)(_NAME, str(error)) from error
        if not decoded.is_finite():
            raise NonFiniteError(_NAME, "decode to NaN or infinity")
        values = decoded.dense().astype(np.float32, copy=False).reshape(spec.shape)
        return np.ascontiguousarray(np.swapaxes(values, 0, 1))


def feature_codec(text: str) -> PresetCodec:
    """Return the codec that ``text`` names, any preset.

    Raises:
        UnknownNameError, ConfigError: see :class:`PresetCodec`.
    """
    return PresetCodec(text)


def _spec(shape: tuple[int, ...]) -> TensorSpec:
    return TensorSpec(_NAME, shape)
