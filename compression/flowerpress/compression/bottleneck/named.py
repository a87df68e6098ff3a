"""Bottlenecks by name, as a user writes them: ``entropic(channels=12)``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from flowerpress.compression.bottleneck.base import Bottleneck
from flowerpress.compression.bottleneck.entropic import Entropic
from flowerpress.compression.bottleneck.measured import ChannelReduction, Plain
from flowerpress.compression.bottleneck.open import Open
from flowerpress.compression.bottleneck.pca import Pca
from flowerpress.compression.bottleneck.vq import VectorQuantized
from flowerpress.compression.errors import ConfigError
from flowerpress.compression.spelling import build

__all__ = ["BOTTLENECKS", "bottleneck", "replaces"]

Shape = tuple[int, ...]
_LEAST_WIDTH = 32
_WIDTH = 96 / 256  # of the published encoder to the channels that leave its decoder


@dataclass(frozen=True)
class _Choice:
    def make(self, shape: Shape, out_shape: Shape) -> Bottleneck:
        """Return the module."""
        raise NotImplementedError


@dataclass(frozen=True)
class _Convolutional(_Choice):
    """``width`` of the encoder's first layer, 0: as many as suit the features that leave."""

    width: int = 0

    def widths(self, out_shape: Shape) -> dict[str, tuple[int, int]]:
        if self.width < 0:
            raise ConfigError(f"width is {self.width}; it must be at least 1, or 0 to be chosen")
        width = self.width or max(_LEAST_WIDTH, round(_WIDTH * out_shape[0]))
        return {
            "widths": (width, max(width // 2, 1)),
            "decoder_widths": (2 * out_shape[0], out_shape[0]),
        }


@dataclass(frozen=True)
class _Entropic(_Convolutional):
    channels: int = 12
    norm: str = "groups"

    def make(self, shape: Shape, out_shape: Shape) -> Bottleneck:
        return Entropic(
            shape,
            out_shape,
            channels=_at_least(1, self.channels),
            norm=self.norm,
            **self.widths(out_shape),
        )


@dataclass(frozen=True)
class _Reduction(_Convolutional):
    channels: int = 3
    bits: int = 8

    def make(self, shape: Shape, out_shape: Shape) -> Bottleneck:
        return ChannelReduction(
            shape,
            out_shape,
            channels=_at_least(1, self.channels),
            bits=self.bits,
            **self.widths(out_shape),
        )


@dataclass(frozen=True)
class _Vq(_Convolutional):
    codes: int = 64
    dimensions: int = 16

    def make(self, shape: Shape, out_shape: Shape) -> Bottleneck:
        return VectorQuantized(
            shape,
            out_shape,
            codes=self.codes,
            dimensions=_at_least(1, self.dimensions),
            **self.widths(out_shape),
        )


@dataclass(frozen=True)
class _Pca(_Choice):
    channels: int = 8
    bits: int = 6

    def make(self, shape: Shape, out_shape: Shape) -> Bottleneck:
        _same(shape, out_shape, "pca")
        return Pca(shape, channels=self.channels, bits=self.bits)


@dataclass(frozen=True)
class _Plain(_Choice):
    bits: int = 8

    def make(self, shape: Shape, out_shape: Shape) -> Bottleneck:
        _same(shape, out_shape, "plain")
        return Plain(shape, bits=self.bits)


@dataclass(frozen=True)
class _None(_Choice):
    def make(self, shape: Shape, out_shape: Shape) -> Bottleneck:
        _same(shape, out_shape, "none")
        return Open(shape)


BOTTLENECKS: Mapping[str, type[_Choice]] = MappingProxyType(
    {
        "entropic": _Entropic,
        "none": _None,
        "pca": _Pca,
        "plain": _Plain,
        "reduction": _Reduction,
        "vq": _Vq,
    }
)
"""What ``bottleneck`` knows, by name."""

_REPLACING = ("entropic", "reduction", "vq")


def bottleneck(text: str, shape: Shape, out_shape: Shape | None = None) -> Bottleneck:
    """Return the bottleneck that ``text`` names; its weights are drawn from torch's generator.

    Args:
        text: such as ``entropic(channels=12)``, ``reduction(channels=3,bits=8)``,
            ``vq(codes=64)``, ``pca(channels=8)``, ``plain(bits=8)`` or ``none``.
        shape: what enters, without the batch: (C, H, W), (C, T) or (C,).
        out_shape: what leaves; None: the same. Only those with layers of their own (``entropic``,
            ``reduction``, ``vq``) can lead to another shape, and so replace layers of the network.

    Raises:
        UnknownNameError: no such bottleneck or parameter.
        ConfigError: a value or a shape that it refuses.
    """
    return build("bottleneck", text, BOTTLENECKS).make(shape, out_shape or shape)


def replaces(text: str) -> bool:
    """Whether what ``text`` names has layers of its own, which can stand for some of a network."""
    return text.partition("(")[0].strip() in _REPLACING


def _same(shape: Shape, out_shape: Shape, name: str) -> None:
    if shape != out_shape:
        raise ConfigError(f"{name} keeps the shape {shape} of features; {out_shape} was asked for")


def _at_least(least: int, value: int) -> int:
    if value < least:
        raise ConfigError(f"{value} is too few; it must be at least {least}")
    return value
