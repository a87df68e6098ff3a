"""One generation as a file: safetensors, with its facts in the header.

    length of the header (8 bytes, little endian) | header (JSON) | tensors, row by row

Any tool that reads safetensors opens it. Names of arrays begin with ``array/``, those of blobs with
``blob/`` (tensors of bytes); ``__metadata__`` holds the generation's number and the facts as JSON.
Nothing in it is ever run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.errors import StorageError

__all__ = ["Snapshot", "file_digest", "file_parts", "read_file"]

FORMAT = "flowerpress.store/1"
# What safetensors accepts as a header.
LARGEST_HEADER = 100_000_000

_DTYPES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint64": "U64",
    "uint32": "U32",
    "uint16": "U16",
    "uint8": "U8",
    "bool": "BOOL",
}
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Snapshot:
    """What one generation holds.

    ``facts`` is what JSON can say (numbers finite, bytes as text); ``arrays`` are tensors of any
    shape in the dtypes of ``flowerpress.compression.DTYPES`` (bfloat16 as float32, as everywhere);
    ``blobs`` are bytes by name. All three keep their order.
    """

    facts: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    blobs: Mapping[str, bytes] = field(default_factory=dict)


def file_parts(path: Path, number: int, snapshot: Snapshot) -> list[memoryview]:
    """Return the file of a generation in parts; tensors that are in order already are not copied.

    Args:
        path: named in errors.
        number: the generation's.
        snapshot: what it holds.

    Raises:
        StorageError: a dtype or a fact that cannot be kept, or too many names.
    """
    try:
        facts = json.dumps(dict(snapshot.facts), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise StorageError(path, f"facts must be what JSON can say: {error}") from error
    header: dict[str, Any] = {
        "__metadata__": {"format": FORMAT, "generation": str(number), "facts": facts}
    }
    parts, end = [], 0
    tensors = [(f"array/{name}", array) for name, array in snapshot.arrays.items()]
    tensors += [(f"blob/{name}", np.frombuffer(b, np.uint8)) for name, b in snapshot.blobs.items()]
    for name, array in tensors:
        if array.dtype.name not in _DTYPES:
            raise StorageError(path, f"{name} has dtype {array.dtype}, which cannot be kept")
        little = np.asarray(array, array.dtype.newbyteorder("<"), order="C")
        header[name] = {
            "dtype": _DTYPES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [end, end + array.nbytes],
        }
        end += array.nbytes
        parts.append(little.reshape(-1).view(np.uint8).data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > LARGEST_HEADER:
        raise StorageError(path, f"names and facts take more than {LARGEST_HEADER:,} bytes")
    return [memoryview(len(text).to_bytes(8, "little") + text), *parts]


def file_digest(path: Path) -> tuple[int, str]:
    """Return the size of a file in bytes and its SHA-256 in hexadecimal."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return size, digest.hexdigest()


def read_file(path: Path, number: int) -> Snapshot:
    """Return what is in the file of a generation whose digest was compared before.

    Raises:
        StorageError: not the file of generation ``number``, whoever wrote it.
    """
    # Reading is what needs the library: it checks every offset before a byte is allocated.
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as opened:
            metadata = opened.metadata() or {}
            if metadata.get("format") != FORMAT or metadata.get("generation") != str(number):
                raise StorageError(path, f"not the file of generation {number}")
            facts = json.loads(metadata["facts"])
            arrays: dict[str, NDArray[Any]] = {}
            blobs: dict[str, bytes] = {}
            for name in _names(path):
                kind, _, own = name.partition("/")
                tensor = opened.get_tensor(name)
                if kind == "array":
                    arrays[own] = tensor
                else:
                    blobs[own] = tensor.tobytes()
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise StorageError(path, f"not a generation that was written here: {error}") from error
    return Snapshot(facts, arrays, blobs)


def _names(path: Path) -> list[str]:
    """Return the names in the order in which they were written, which the library does not keep."""
    with path.open("rb") as stream:
        header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    return [name for name in header if name != "__metadata__"]
