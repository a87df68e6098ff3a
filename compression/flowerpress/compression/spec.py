"""What is known of tensors before any bytes arrive: their names, shapes and dtypes.

Both ends derive the same manifest from the same model, so an update refers to a tensor by its
index and a receiver takes every size from its own manifest, never from the sender.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.bfloat16 import rounded, to_bits
from flowerpress.compression.errors import ConfigError, LimitError, ManifestError
from flowerpress.compression.limits import DEFAULT_LIMITS, Limits

__all__ = ["DTYPES", "Manifest", "TensorSpec", "model_digest"]

# The wire number of a dtype is its place in this tuple: append only.
DTYPES = (
    "float32",
    "float16",
    "float64",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "bool",
    "bfloat16",
)
BFLOAT16 = DTYPES[-1]


@dataclass(frozen=True)
class TensorSpec:
    """Name, shape and dtype of one tensor. A scalar has the shape ``()`` and size 1.

    A tensor of dtype bfloat16, which NumPy lacks, is a float32 array in memory.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ConfigError(
                f"tensor {self.name!r} has dtype {self.dtype}, which cannot be sent; "
                f"convert it to one of {', '.join(DTYPES[:-1])} (bfloat16 to float32)"
            )

    @cached_property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @cached_property
    def nbytes(self) -> int:
        """Bytes of the uncompressed tensor."""
        return self.size * (2 if self.dtype == BFLOAT16 else self.storage.itemsize)

    @property
    def storage(self) -> np.dtype[Any]:
        """The dtype of the array that holds the tensor: its own, or float32 for bfloat16."""
        return np.dtype(np.float32 if self.dtype == BFLOAT16 else self.dtype)

    def cast(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return ``values`` in the storage dtype, rounded to what the tensor's dtype can hold.

        Not a copy where nothing changes. What does not fit overflows as NumPy has it.
        """
        return (
            rounded(values) if self.dtype == BFLOAT16 else values.astype(self.storage, copy=False)
        )

    @property
    def is_float(self) -> bool:
        """Whether lossy codecs and differences make sense for this tensor."""
        return "float" in self.dtype


@dataclass(frozen=True)
class Manifest:
    """The tensors of one model, in the order in which updates refer to them."""

    specs: tuple[TensorSpec, ...]

    def __post_init__(self) -> None:
        if len({spec.name for spec in self.specs}) != len(self.specs):
            raise ConfigError("two tensors of the model have the same name")

    def __len__(self) -> int:
        return len(self.specs)

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]]) -> Manifest:
        """Describe ``arrays`` in their own order."""
        return cls(
            tuple(
                TensorSpec(name, a.shape, a.dtype.newbyteorder("=").name)
                for name, a in arrays.items()
            )
        )

    @cached_property
    def size(self) -> int:
        """Number of elements of all tensors."""
        return sum(spec.size for spec in self.specs)

    @cached_property
    def nbytes(self) -> int:
        """Bytes of all tensors, uncompressed."""
        return sum(spec.nbytes for spec in self.specs)

    @cached_property
    def digest(self) -> bytes:
        """Eight bytes that two manifests share only if they describe the same tensors."""
        h = hashlib.sha256(b"fp-manifest")
        for spec in self.specs:
            name = spec.name.encode()
            h.update(len(name).to_bytes(4, "little") + name)
            h.update(bytes([DTYPES.index(spec.dtype), len(spec.shape)]))
            for extent in spec.shape:
                h.update(extent.to_bytes(8, "little"))
        return h.digest()[:8]

    def check_limits(self, limits: Limits = DEFAULT_LIMITS) -> None:
        """Refuse a manifest that came over the wire and asks for too much.

        Raises:
            LimitError: too many tensors, dimensions or elements, or an extent that no array has.
        """
        if len(self.specs) > limits.max_tensors:
            raise LimitError(
                "manifest", f"{len(self.specs)} tensors, at most {limits.max_tensors} are accepted"
            )
        for spec in self.specs:
            if len(spec.shape) > limits.max_dimensions:
                raise LimitError(
                    f"manifest[{spec.name!r}].shape",
                    f"more than {limits.max_dimensions} dimensions",
                )
            # Without its zeros: NumPy refuses empty arrays of impossible shapes too.
            if math.prod(extent or 1 for extent in spec.shape) > limits.max_elements:
                raise LimitError(
                    f"manifest[{spec.name!r}].shape",
                    f"more than {limits.max_elements} elements, or would be if it were not empty",
                )
        if self.size > limits.max_elements:
            raise LimitError(
                "manifest", f"{self.size} elements, at most {limits.max_elements} are accepted"
            )

    def match(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return ``arrays`` in the manifest's order, and in its dtypes where their values fit.

        Apps and strategies widen tensors: float32 to float64, counters to averages of counters,
        which are rounded here. What does not fit is returned as it is, for a codec to refuse.

        Raises:
            ManifestError: a tensor is missing, unexpected, or has another shape.
        """
        expected = {spec.name for spec in self.specs}
        if missing := sorted(expected - arrays.keys()):
            raise ManifestError("tensors", f"missing from the model: {', '.join(missing)}")
        if extra := sorted(arrays.keys() - expected):
            raise ManifestError(
                "tensors", f"not in the model that training began with: {', '.join(extra)}"
            )
        for spec in self.specs:
            if arrays[spec.name].shape != spec.shape:
                raise ManifestError(
                    f"tensors[{spec.name!r}]",
                    f"shape {arrays[spec.name].shape}, the model has {spec.shape}",
                )
        return {spec.name: _narrowed(arrays[spec.name], spec) for spec in self.specs}


def _narrowed(array: NDArray[Any], spec: TensorSpec) -> NDArray[Any]:
    dtype = spec.storage
    if array.dtype == dtype and spec.dtype != BFLOAT16:
        return array
    if spec.is_float:
        with np.errstate(over="ignore"):
            return spec.cast(array.astype(dtype, casting="same_kind", copy=False))
    whole = np.asarray(np.rint(array)) if array.dtype.kind == "f" else array
    if dtype.kind == "b":
        whole = np.asarray(np.clip(whole, 0, 1))
    with np.errstate(invalid="ignore"):
        own = whole.astype(dtype)
    return own if np.array_equal(own, whole) else array


def model_digest(manifest: Manifest, arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Return 16 bytes that identify the exact bits of a model.

    Args:
        manifest: gives the order and the dtypes.
        arrays: name -> array with the manifest's shape, in its dtype (``TensorSpec.storage``).
    """
    h = hashlib.sha256(b"fp-model" + manifest.digest)
    for spec in manifest.specs:
        array = arrays[spec.name]
        own = to_bits(array) if spec.dtype == BFLOAT16 else array
        wire = np.dtype(np.uint16) if spec.dtype == BFLOAT16 else spec.storage
        little = own.astype(wire.newbyteorder("<"), copy=False)
        h.update(np.ascontiguousarray(little).reshape(-1).view(np.uint8).data)
    return h.digest()[:16]
