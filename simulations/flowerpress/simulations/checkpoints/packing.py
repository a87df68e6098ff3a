"""Tensors to an update and back, with what each of them cost.

A packed checkpoint is an update of kind MODEL that brings its manifest: everything that reads
updates reads it. Values pass one tensor at a time; what has to be in memory is what is packed, and
the tensors themselves only for a codec that looks at all of them together.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression import (
    Coded,
    Context,
    EncodeError,
    FormatError,
    Frame,
    NonFiniteError,
    Plan,
    Sparse,
    TensorSpec,
    decode_frames,
)
from flowerpress.protos.envelope import Kind, Update
from flowerpress.simulations.checkpoints.stored import Stored

__all__ = ["Cost", "metadata_of", "pack_tensors", "unpacked"]

Told = Callable[[str], None]
_PART = 1 << 20


@dataclass(frozen=True)
class Cost:
    """What one tensor became: bytes, entries that are not left out, squared error and energy.

    ``error`` and ``energy`` are None where there are no values to compare with, or no floats.
    """

    spec: TensorSpec
    codec: str
    bytes: int
    kept: int
    error: float | None = None
    energy: float | None = None


def pack_tensors(stored: Stored, plan: Plan, told: Told) -> tuple[Update, list[Cost]]:
    """Return the update that holds ``stored``, and the cost of every tensor.

    Args:
        stored: the tensors.
        plan: their codecs. Random choices are the same every time.
        told: called with each tensor's name when it is done.

    Raises:
        ConfigError: a damaged file, or more tensors or elements than an update may have.
        EncodeError: a value that cannot be packed.
    """
    manifest = stored.manifest
    manifest.check_limits()
    plan.check(manifest)
    frames, costs = [], []
    for index, (spec, x, coded) in enumerate(_coded(stored, plan)):
        frame = Frame(index, coded.codec, coded.body)
        ((_, decoded),) = decode_frames(manifest, [frame])
        error = energy = None
        if spec.is_float:
            values = x.reshape(-1)
            error, energy = _distance(values, spec.cast(decoded.dense()))
        kept = decoded.positions.size if isinstance(decoded, Sparse) else spec.size
        frames.append(frame)
        costs.append(Cost(spec, coded.codec.describe(), len(coded.body), kept, error, energy))
        told(spec.name)
    text = json.dumps(stored.metadata, ensure_ascii=False) if stored.metadata else ""
    update = Update(
        Kind.MODEL, 0, 0, 0, 0, manifest.digest, frames, manifest=manifest, metadata=text
    )
    return update, costs


def _coded(stored: Stored, plan: Plan) -> Iterator[tuple[TensorSpec, NDArray[Any], Coded]]:
    specs, rng = stored.manifest.specs, np.random.default_rng(0)
    if not plan.together:
        for spec, codec in zip(specs, plan.codecs, strict=True):
            x = _read(stored, spec)
            yield spec, x, Coded(codec, codec.encode(x, spec, Context(rng)))
        return
    tensors = [_read(stored, spec) for spec in specs]
    together = plan.encode(stored.manifest, tensors, [Context(rng)] * len(specs))
    yield from zip(specs, tensors, together, strict=True)


def _read(stored: Stored, spec: TensorSpec) -> NDArray[Any]:
    x = stored.read(spec)
    if spec.is_float and not np.isfinite(x).all():
        raise EncodeError(
            spec.name, "holds NaN or infinity, which no codec takes; leave it out of the file"
        )
    return x


def _distance(x: NDArray[Any], y: NDArray[Any]) -> tuple[float, float]:
    """Return squared error and energy in double precision, a part at a time."""
    error = energy = 0.0
    for at in range(0, x.size, _PART):
        wide = x[at : at + _PART].astype(np.float64)
        energy += float(np.dot(wide, wide))
        wide -= y[at : at + _PART]
        error += float(np.dot(wide, wide))
    return error, energy


def unpacked(update: Update, told: Told) -> Iterator[tuple[TensorSpec, NDArray[Any]]]:
    """Yield the tensors of an update that holds all of a model, in the manifest's order.

    Args:
        update: hostile; it brings its manifest.
        told: called with each tensor's name when it is done.

    Raises:
        WireError: a change and not a model, tensors that are missing, or a broken body.
    """
    manifest = update.manifest
    if update.kind is not Kind.MODEL or manifest is None:
        raise FormatError("kind", "the change of a model, not a model that can be unpacked")
    if len(update.frames) != len(manifest):
        raise FormatError("tensor", f"{len(update.frames)} of {len(manifest)} tensors are there")
    for index, decoded in decode_frames(manifest, update.frames):
        spec = manifest.specs[index]
        with np.errstate(over="ignore"):
            values = spec.cast(decoded.dense())
        if spec.is_float and not np.isfinite(values).all():
            raise NonFiniteError(f"frame[{spec.name!r}]", f"overflows {spec.dtype}")
        yield spec, values.reshape(spec.shape)
        told(spec.name)


def metadata_of(update: Update) -> dict[str, str]:
    """Return the metadata of the file that was packed.

    Raises:
        FormatError: not a JSON object of strings.
    """
    if not update.metadata:
        return {}
    try:
        found = json.loads(update.metadata)
    except (ValueError, RecursionError) as error:
        raise FormatError("metadata", "is not JSON") from error
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise FormatError("metadata", "is not a JSON object of strings")
    return found
