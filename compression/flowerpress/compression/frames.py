"""Tensors to frames and back: the step that both ends of every exchange share.

A frame is one coded tensor. ``encode_frames`` returns, beside the frames, exactly what the
receiver will decode, because error feedback and the server's copy of what its clients hold must
be computed from that and from nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.codec import Codec, Context
from flowerpress.compression.decoded import Decoded
from flowerpress.compression.errors import NonFiniteError, WireError
from flowerpress.compression.grouped import Grouped
from flowerpress.compression.lowrank import LowRank
from flowerpress.compression.pipeline import Pipeline
from flowerpress.compression.plan import Plan
from flowerpress.compression.powersgd import PowerSgd
from flowerpress.compression.rd.codec import RateDistortion
from flowerpress.compression.spec import Manifest

__all__ = [
    "CODECS",
    "Frame",
    "apply_frames",
    "compensate",
    "decode_frames",
    "difference",
    "encode_frames",
    "residual",
    "warmth",
]

# Every codec that a recipe may name, by wire tag.
CODECS: dict[int, type[Codec]] = {
    Pipeline.tag: Pipeline,
    PowerSgd.tag: PowerSgd,
    LowRank.tag: LowRank,
    RateDistortion.tag: RateDistortion,
    Grouped.tag: Grouped,
}

Arrays = Mapping[str, NDArray[Any]]
Residuals = dict[str, NDArray[np.float32]]
_NONE: Mapping[str, NDArray[Any]] = MappingProxyType({})


@dataclass(frozen=True)
class Frame:
    """One coded tensor: its index in the manifest, its codec, its body."""

    tensor: int
    codec: Codec
    body: bytes | memoryview


def encode_frames(
    manifest: Manifest,
    plan: Plan,
    tensors: Mapping[str, NDArray[Any]],
    rng: np.random.Generator | None,
    *,
    references: Arrays = _NONE,
    relevance: Arrays = _NONE,
    warm: Mapping[str, NDArray[np.float32]] = _NONE,
) -> tuple[list[Frame], list[Decoded]]:
    """Encode every tensor with its codec.

    Args:
        manifest: the tensors, in order.
        plan: one codec each.
        tensors: name -> array with the manifest's shape.
        rng: for stochastic codecs; used in manifest order.
        references: name -> tensor that the decoder holds, too (``Context.reference``).
        relevance: name -> score of every element (``Context.relevance``).
        warm: what ``warmth`` returned for the previous update.

    Returns:
        The frames, and what a receiver decodes from each.

    Raises:
        EncodeError: a tensor cannot be encoded; nothing has been changed.
    """
    contexts = [
        Context(
            rng,
            references.get(spec.name),
            relevance.get(spec.name),
            warm.get(spec.name),
        )
        for spec in manifest.specs
    ]
    coded = plan.encode(manifest, [tensors[spec.name] for spec in manifest.specs], contexts)
    frames = [Frame(index, each.codec, each.body) for index, each in enumerate(coded)]
    decoded = [
        each.codec.decode(memoryview(each.body), spec, context.reference)
        for each, spec, context in zip(coded, manifest.specs, contexts, strict=True)
    ]
    return frames, decoded


def warmth(manifest: Manifest, frames: Sequence[Frame]) -> dict[str, NDArray[np.float32]]:
    """Return what shortens the work on the next update: its ``warm``, by name."""
    out = {}
    for frame in frames:
        spec = manifest.specs[frame.tensor]
        kept = frame.codec.warmth(memoryview(frame.body), spec)
        if kept is not None:
            out[spec.name] = kept
    return out


def decode_frames(
    manifest: Manifest, frames: Sequence[Frame], references: Arrays = _NONE
) -> Iterator[tuple[int, Decoded]]:
    """Decode frames one at a time; only one decoded tensor is alive.

    Args:
        manifest: the receiver's own.
        frames: hostile.
        references: name -> the tensor that the encoder had as its reference.

    Raises:
        WireError: a body is not what an encoder writes, or decodes to NaN or infinity.
    """
    for frame in frames:
        spec = manifest.specs[frame.tensor]
        try:
            decoded = frame.codec.decode(memoryview(frame.body), spec, references.get(spec.name))
        except WireError as error:
            if spec.name in error.field:
                raise
            # A coder knows its body and not whose it is.
            raise type(error)(f"frame[{spec.name!r}]", str(error)) from error
        if not decoded.is_finite():
            raise NonFiniteError(f"frame[{spec.name!r}]", "decodes to NaN or infinity")
        yield frame.tensor, decoded


def apply_frames(
    manifest: Manifest,
    arrays: Mapping[str, NDArray[Any]],
    frames: Sequence[Frame],
    *,
    change: bool,
    references: Arrays = _NONE,
) -> dict[str, NDArray[Any]]:
    """Return the model that ``frames`` lead to; server and clients run this same code.

    Args:
        manifest: the model's tensors.
        arrays: name -> array of the base model; not changed. Empty where ``change`` is False.
        frames: coded tensors; with ``change``, tensors without a frame stay as they are.
        change: whether floating-point frames hold differences, to be added in the tensor's own
            dtype, or values. Tensors of integers are always values.
        references: name -> the tensor that the encoder had as its reference.

    Raises:
        WireError: a body is broken, or decodes to NaN or infinity.
    """
    out = dict(arrays)
    for index, decoded in decode_frames(manifest, frames, references):
        spec = manifest.specs[index]
        if change and spec.is_float:
            total = np.array(arrays[spec.name], order="C").reshape(-1)
            with np.errstate(over="ignore", invalid="ignore"):
                decoded.add_to(total)
                total = spec.cast(total)
        else:
            with np.errstate(over="ignore"):
                total = spec.cast(decoded.dense())
        if spec.is_float and not np.isfinite(total).all():
            raise NonFiniteError(f"frame[{spec.name!r}]", f"overflows {spec.dtype} in the model")
        out[spec.name] = total.reshape(spec.shape)
    return out


def difference(
    manifest: Manifest, after: Mapping[str, NDArray[Any]], before: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    """Return what a delta codes: ``after - before`` in float32, tensors of integers as values.

    Double precision is subtracted as such and rounded afterwards. What overflows becomes infinite
    or NaN, which no codec encodes.
    """
    out: dict[str, NDArray[Any]] = {}
    with np.errstate(over="ignore", invalid="ignore"):
        for spec in manifest.specs:
            new = after[spec.name]
            if spec.is_float:
                old = before[spec.name]
                wide = np.result_type(new, old, np.float32)  # half precision would overflow
                change = np.subtract(new, old, dtype=wide)
                new = change.astype(np.float32, casting="same_kind", copy=False)
            out[spec.name] = new
    return out


def compensate(
    manifest: Manifest, delta: Mapping[str, NDArray[Any]], residuals: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    """Return ``delta`` plus the residual of each tensor that has one (error feedback, sent side).

    Seide et al., Interspeech 2014; Karimireddy et al., ICML 2019, algorithm 2.
    """
    return {
        spec.name: delta[spec.name] + residuals[spec.name]
        if spec.name in residuals
        else delta[spec.name]
        for spec in manifest.specs
    }


def residual(
    manifest: Manifest,
    plan: Plan,
    tensors: Mapping[str, NDArray[Any]],
    decoded: Sequence[Decoded],
) -> Residuals:
    """Return what was meant (``tensors``) minus what arrives (``decoded``), for biased codecs.

    An unbiased codec gets no residual: its errors average out, and feeding them back would add
    variance.
    """
    out: Residuals = {}
    for spec, codec, value in zip(manifest.specs, plan.codecs, decoded, strict=True):
        if codec.biased:
            rest = tensors[spec.name].astype(np.float32).reshape(-1)
            value.add_to(rest, -1.0)
            out[spec.name] = rest.reshape(spec.shape)
    return out
