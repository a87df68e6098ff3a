"""Tensors written to files, one at a time: .safetensors and .npz."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression import ConfigError, Manifest, TensorSpec
from flowerpress.compression.bfloat16 import to_bits
from flowerpress.simulations.checkpoints.stored import NAMES

__all__ = ["WRITERS", "Tensors", "check_writable"]

Tensors = Iterable[tuple[TensorSpec, NDArray[Any]]]
"""In the order of the manifest, all of them."""

_OWN = {own: name for name, own in NAMES.items()}
_ALIGNED = 8


def check_writable(path: Path, manifest: Manifest) -> None:
    """Refuse a kind of file that cannot hold these tensors, before any work is done.

    Raises:
        ConfigError: an unknown suffix, or bfloat16 for .npz.
    """
    if path.suffix not in WRITERS:
        raise ConfigError(f"{path}: tensors are written to {' or '.join(sorted(WRITERS))}")
    if path.suffix == ".npz":
        for spec in manifest.specs:
            if spec.dtype == "bfloat16":
                raise ConfigError(
                    f"{path}: .npz cannot hold the bfloat16 tensor {spec.name!r}; "
                    "write .safetensors"
                )
    elif any(spec.name == "__metadata__" for spec in manifest.specs):
        raise ConfigError(f"{path}: .safetensors cannot hold a tensor named '__metadata__'")


def _safetensors(
    stream: BinaryIO, manifest: Manifest, metadata: Mapping[str, str], tensors: Tensors
) -> None:
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    at = 0
    for spec in manifest.specs:
        header[spec.name] = {
            "dtype": _OWN[spec.dtype],
            "shape": list(spec.shape),
            "data_offsets": [at, at + spec.nbytes],
        }
        at += spec.nbytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNED)
    stream.write(len(text).to_bytes(8, "little") + text)
    for spec, array in tensors:
        own = to_bits(array) if spec.dtype == "bfloat16" else array
        little = np.ascontiguousarray(own, own.dtype.newbyteorder("<")).reshape(-1)
        stream.write(little.view(np.uint8).data)


def _npz(
    stream: BinaryIO, manifest: Manifest, metadata: Mapping[str, str], tensors: Tensors
) -> None:
    del manifest, metadata
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for spec, array in tensors:
            with archive.open(f"{spec.name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


WRITERS: dict[str, Callable[[BinaryIO, Manifest, Mapping[str, str], Tensors], None]] = {
    ".safetensors": _safetensors,
    ".npz": _npz,
}
