"""Codecs for model updates: NumPy, numba and zstandard; no torch, no Flower, no gRPC.

Start with ``preset("stc").plan(Manifest.of(arrays))`` and ``encode_frames``.

Names are imported when first used: an error class or a command line's help must not wait for the
kernels' compiler.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowerpress.compression.codec import Codec, Context, read_recipe, recipe
    from flowerpress.compression.decoded import Decoded, Dense, Sparse
    from flowerpress.compression.errors import (
        ChecksumError,
        ConfigError,
        EncodeError,
        FlowerpressError,
        FormatError,
        LimitError,
        ManifestError,
        NonFiniteError,
        SequenceError,
        StorageError,
        TruncatedError,
        UnknownNameError,
        WireError,
    )
    from flowerpress.compression.frames import (
        CODECS,
        Frame,
        apply_frames,
        compensate,
        decode_frames,
        difference,
        encode_frames,
        residual,
        warmth,
    )
    from flowerpress.compression.grouped import Grouped
    from flowerpress.compression.limits import DEFAULT_LIMITS, Limits
    from flowerpress.compression.pipeline import Pipeline
    from flowerpress.compression.plan import Coded, Joint, Plan, Together
    from flowerpress.compression.presets import PRESETS, Preset, preset
    from flowerpress.compression.spec import DTYPES, Manifest, TensorSpec, model_digest
    from flowerpress.compression.wire import Reader, Writer

__all__ = [
    "CODECS",
    "DEFAULT_LIMITS",
    "DTYPES",
    "PRESETS",
    "ChecksumError",
    "Codec",
    "Coded",
    "ConfigError",
    "Context",
    "Decoded",
    "Dense",
    "EncodeError",
    "FlowerpressError",
    "FormatError",
    "Frame",
    "Grouped",
    "Joint",
    "LimitError",
    "Limits",
    "Manifest",
    "ManifestError",
    "NonFiniteError",
    "Pipeline",
    "Plan",
    "Preset",
    "Reader",
    "SequenceError",
    "Sparse",
    "StorageError",
    "TensorSpec",
    "Together",
    "TruncatedError",
    "UnknownNameError",
    "WireError",
    "Writer",
    "apply_frames",
    "compensate",
    "decode_frames",
    "difference",
    "encode_frames",
    "model_digest",
    "preset",
    "read_recipe",
    "recipe",
    "residual",
    "warmth",
]

_MODULES = {
    "codec": (
        "Codec",
        "Context",
        "read_recipe",
        "recipe",
    ),
    "decoded": (
        "Decoded",
        "Dense",
        "Sparse",
    ),
    "errors": (
        "ChecksumError",
        "ConfigError",
        "EncodeError",
        "FlowerpressError",
        "FormatError",
        "LimitError",
        "ManifestError",
        "NonFiniteError",
        "SequenceError",
        "StorageError",
        "TruncatedError",
        "UnknownNameError",
        "WireError",
    ),
    "frames": (
        "CODECS",
        "Frame",
        "apply_frames",
        "compensate",
        "decode_frames",
        "difference",
        "encode_frames",
        "residual",
        "warmth",
    ),
    "grouped": ("Grouped",),
    "limits": (
        "DEFAULT_LIMITS",
        "Limits",
    ),
    "pipeline": ("Pipeline",),
    "plan": ("Coded", "Joint", "Plan", "Together"),
    "presets": (
        "PRESETS",
        "Preset",
        "preset",
    ),
    "spec": (
        "DTYPES",
        "Manifest",
        "TensorSpec",
        "model_digest",
    ),
    "wire": (
        "Reader",
        "Writer",
    ),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


if not TYPE_CHECKING:  # a checker must still refuse names that do not exist

    def __getattr__(name: str) -> Any:
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
