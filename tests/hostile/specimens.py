"""Frames of every preset, found by asking the registry: new presets are attacked without a word.

``spellings()`` writes each preset as it stands, and once for each value of each of its parameters
that it takes.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression import (
    PRESETS,
    Codec,
    ConfigError,
    EncodeError,
    Frame,
    Grouped,
    Manifest,
    Plan,
    TensorSpec,
    UnknownNameError,
    encode_frames,
    preset,
)
from flowerpress.compression.bfloat16 import rounded
from flowerpress.compression.grouped import rows_of

__all__ = [
    "ARRAYS",
    "GROUPS",
    "MANIFEST",
    "REFERENCES",
    "Specimen",
    "coded",
    "grouped",
    "in_groups",
    "specimens",
    "spellings",
]

# What blocks of rows are coded with, each group of them under the name of its first.
GROUPS = (
    ("stc(density=0.1)", "int8", "int8", "nf4"),
    ("rd(step=0.3)",) * 3,
    ("powersgd(rank=1)", "lowrank", "none"),
    ("none",) * 2,
)

_INTEGERS = (1, 2, 3, 16, 700, 5000)
_FLOATS = (0.0, 0.003, 0.1, 0.5, 1.0, 10.0)


def _model() -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(1)
    rows = np.zeros((60, 8))
    rows[[3, 17, 40]] = rng.standard_normal((3, 8))
    return {
        "dense": rng.laplace(0, 0.1, (12, 50)).astype(np.float32),
        "conv": rng.standard_normal((8, 3, 3, 3)).astype(np.float32),
        "long": rng.standard_normal(4200).astype(np.float32),
        "rows": rows.astype(np.float32),
        "half": rng.standard_normal((2, 9)).astype(np.float16),
        "double": rng.standard_normal((4, 5)),
        "brain": rounded(rng.standard_normal((5, 6))),
        "bias": rng.standard_normal(7).astype(np.float32),
        "zeros": np.zeros((3, 11), np.float32),
        "scalar": np.full((), 0.75, np.float32),
        "empty": np.zeros((0, 4), np.float32),
        "steps": np.array([5, -1, 1 << 40]),
        "mask": np.arange(9) % 2 == 0,
    }


ARRAYS = _model()
MANIFEST = Manifest(
    tuple(
        TensorSpec(name, array.shape, "bfloat16" if name == "brain" else array.dtype.name)
        for name, array in ARRAYS.items()
    )
)
# What both ends hold: something like the tensors, as the last round's update is.
REFERENCES = {
    name: (array + np.random.default_rng(2).standard_normal(array.shape) / 4).astype(array.dtype)
    for name, array in ARRAYS.items()
    if array.dtype.kind == "f"
}


@dataclass(frozen=True)
class Specimen:
    """A frame as an honest sender makes it. ``reference`` is what both ends hold, or None."""

    text: str
    spec: TensorSpec
    codec: Codec
    body: bytes
    reference: NDArray[Any] | None

    @cached_property
    def manifest(self) -> Manifest:
        """The tensor alone, as a receiver's model."""
        return Manifest((self.spec,))


@cache
def spellings() -> tuple[str, ...]:
    """Return every preset in several spellings, the plain one first."""
    found = []
    for name, kind in PRESETS.items():
        found.append(name)
        for field in dataclasses.fields(kind):  # type: ignore[arg-type]
            for value in _values(name, field):
                text = f"{name}({field.name}={value})"
                try:
                    preset(text)
                except ConfigError:
                    continue
                found.append(text)
    return tuple(dict.fromkeys(found))


def _values(name: str, field: dataclasses.Field[Any]) -> Iterator[Any]:
    kind = str(field.type).removesuffix(" | None")
    if kind == "bool":
        yield from ("false", "true")
        return
    if kind != "str":
        yield from _INTEGERS if kind == "int" else _FLOATS
        return
    try:
        preset(f"{name}({field.name}=?)")
    except UnknownNameError as error:
        yield from error.known
    except ConfigError as error:
        # Its message names the values: the words that are none are refused soon enough.
        yield from dict.fromkeys(re.findall(r"[\w.-]+", str(error)))


@cache
def coded(text: str, *, shared: bool = False) -> tuple[Frame, ...] | None:
    """Return the frames of ``ARRAYS``, or None where this spelling refuses such small tensors.

    ``shared``: both ends hold ``REFERENCES``.
    """
    plan = preset(text).plan(MANIFEST)
    references = REFERENCES if shared else {}
    rng = np.random.default_rng(3)
    try:
        frames, _ = encode_frames(MANIFEST, plan, ARRAYS, rng, references=references)
    except (ConfigError, EncodeError):  # a budget may be out of reach
        return None
    return tuple(frames)


def grouped(spec: TensorSpec, texts: tuple[str, ...]) -> Codec:
    """Return the codec of a tensor in blocks of rows; lossless ones for integers."""
    chosen = texts if spec.is_float else ("none",) * len(texts)
    cuts = rows_of(spec, len(texts))
    parts = [TensorSpec(spec.name, (b - a, *spec.shape[1:]), spec.dtype) for a, b in cuts]
    return Grouped([preset(t).codec(part) for t, part in zip(chosen, parts, strict=True)])


@cache
def in_groups(texts: tuple[str, ...], *, shared: bool = False) -> tuple[Frame, ...]:
    """Return the frames of ``ARRAYS`` in blocks of rows, coded with ``texts``."""
    plan = Plan(tuple(grouped(spec, texts) for spec in MANIFEST.specs))
    references = REFERENCES if shared else {}
    rng = np.random.default_rng(3)
    return tuple(encode_frames(MANIFEST, plan, ARRAYS, rng, references=references)[0])


@cache
def specimens() -> tuple[Specimen, ...]:
    """Return one specimen for every different pair of codec and body."""
    found: dict[tuple[str, str, bytes], Specimen] = {}
    for shared in (False, True):
        made = [(text, coded(text, shared=shared) or ()) for text in spellings()]
        made += [(texts[0], in_groups(texts, shared=shared)) for texts in GROUPS]
        for text, frames in made:
            for frame in frames:
                spec = MANIFEST.specs[frame.tensor]
                reference = REFERENCES.get(spec.name) if shared else None
                body = bytes(frame.body)
                one = Specimen(text, spec, frame.codec, body, reference)
                found.setdefault((frame.codec.describe(), spec.name, body), one)
    return tuple(found.values())
