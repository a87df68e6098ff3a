"""Tensors in files, read one at a time: .safetensors, the index of a sharded one, .npz.

A safetensors file is mapped into memory, so that a tensor costs none until it is used, and a
float32 one none of its own even then.
"""

from __future__ import annotations

import json
import mmap
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression import ConfigError, FlowerpressError, Manifest, TensorSpec
from flowerpress.compression.bfloat16 import from_bits

__all__ = ["NAMES", "Stored", "mapped", "opened"]

INDEX = ".safetensors.index.json"
_PICKLED = (".pt", ".pth", ".bin", ".ckpt")

# What safetensors calls the dtypes that can be packed.
NAMES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
}


@dataclass(frozen=True)
class Stored:
    """Tensors that are in files: the ``manifest`` in the files' order, and a reader of each.

    ``metadata`` is the text that the file has beside them.
    """

    manifest: Manifest
    readers: dict[str, Callable[[], NDArray[Any]]]
    metadata: dict[str, str] = field(default_factory=dict)

    def read(self, spec: TensorSpec) -> NDArray[Any]:
        """Return a tensor in the dtype in which arrays hold it (``TensorSpec.storage``).

        Raises:
            ConfigError: the file is damaged there.
        """
        return self.readers[spec.name]()


def opened(path: Path) -> Stored:
    """Return the tensors of ``path``: .safetensors, .safetensors.index.json, or .npz.

    Raises:
        ConfigError: missing, damaged, of another kind, or with tensors that cannot be packed.
    """
    if path.is_dir():
        raise ConfigError(f"{path}: is a folder; name a file in it{_candidates(path)}")
    if path.suffix in _PICKLED:
        raise ConfigError(
            f"{path}: PyTorch's pickles are never loaded, as they may run code; save the model "
            "with safetensors.torch.save_file"
        )
    try:
        if path.name.endswith(INDEX):
            return _of_index(path)
        if path.suffix == ".safetensors":
            return _of_safetensors(path)
        if zipfile.is_zipfile(path):
            return _of_npz(path)
        path.open("rb").close()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    except FlowerpressError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: damaged, or holds more than tensors") from error
    raise ConfigError(f"{path}: neither an update nor tensors in .npz, .safetensors or *{INDEX}")


def _candidates(folder: Path) -> str:
    found = sorted(folder.glob(f"*{INDEX}")) or sorted(folder.glob("*.safetensors"))
    return f", such as {found[0]}" if found else ""


def mapped(path: Path) -> memoryview:
    """Return the bytes of a file without reading them yet.

    Raises:
        OSError: the file cannot be opened.
    """
    with path.open("rb") as stream:
        if not path.stat().st_size:
            return memoryview(b"")  # which cannot be mapped
        return memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))


def _of_safetensors(path: Path) -> Stored:
    from safetensors import SafetensorError, safe_open

    try:
        # It checks every size and offset of the header, which then can be taken at its word.
        with safe_open(path, framework="numpy") as checked:
            metadata = dict(checked.metadata() or {})
    except SafetensorError as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    data = mapped(path)
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(bytes(data[8:start]))
    header.pop("__metadata__", None)
    entries = sorted(header.items(), key=lambda item: item[1]["data_offsets"])
    specs, readers = [], {}
    for name, entry in entries:
        if entry["dtype"] not in NAMES:
            raise ConfigError(
                f"{path}: tensor {name!r} has dtype {entry['dtype']}, which cannot be packed; "
                f"convert it to one of {', '.join(NAMES)}"
            )
        spec = TensorSpec(name, tuple(entry["shape"]), NAMES[entry["dtype"]])
        first, end = entry["data_offsets"]
        specs.append(spec)
        readers[name] = _reader(data[start + first : start + end], spec)
    return Stored(Manifest(tuple(specs)), readers, metadata)


def _reader(data: memoryview, spec: TensorSpec) -> Callable[[], NDArray[Any]]:
    def read() -> NDArray[Any]:
        if spec.dtype == "bfloat16":
            return from_bits(np.frombuffer(data, "<u2")).reshape(spec.shape)
        if spec.dtype == "bool":  # a byte other than 0 and 1 is none that NumPy may hold
            return np.not_equal(np.frombuffer(data, np.uint8), 0).reshape(spec.shape)
        return np.frombuffer(data, spec.storage.newbyteorder("<")).reshape(spec.shape)

    return read


def _of_index(path: Path) -> Stored:
    weights = json.loads(path.read_text())["weight_map"]
    specs: list[TensorSpec] = []
    readers = {}
    metadata: dict[str, str] = {}
    for name in dict.fromkeys(weights.values()):
        if Path(name).name != name:
            raise ConfigError(f"{path}: names {name!r}, which is not beside it")
        shard = opened(path.with_name(name))
        metadata |= shard.metadata
        for spec in shard.manifest.specs:
            if weights.get(spec.name) == name:
                specs.append(spec)
                readers[spec.name] = shard.readers[spec.name]
    if missing := sorted(weights.keys() - readers.keys()):
        raise ConfigError(f"{path}: no shard holds {', '.join(missing[:5])}")
    return Stored(Manifest(tuple(specs)), readers, metadata)


def _of_npz(path: Path) -> Stored:
    archive = np.load(path, allow_pickle=False)
    try:
        specs = list(_headers(path, archive.files))
    except (ConfigError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise ConfigError(f"{path}: {error}") from error
    readers = {spec.name: _member(archive, spec.name, path) for spec in specs}
    # Large elements first, which keeps them aligned in files that leave no gaps.
    specs.sort(key=lambda spec: -spec.storage.itemsize)
    return Stored(Manifest(tuple(specs)), readers)


def _headers(path: Path, names: list[str]) -> Iterator[TensorSpec]:
    """Yield what each member is without reading its values, which must be there."""
    from numpy.lib import format as npy

    with zipfile.ZipFile(path) as archive:
        members = {info.filename: info for info in archive.infolist()}
        for name in names:
            info = members.get(f"{name}.npy") or members[name]
            with archive.open(info) as stream:
                old = npy.read_magic(stream) == (1, 0)
                read = npy.read_array_header_1_0 if old else npy.read_array_header_2_0
                shape, _, dtype = read(stream)
                spec = TensorSpec(name, shape, dtype.newbyteorder("=").name)
                if stream.tell() + spec.nbytes != info.file_size:
                    raise ConfigError(f"{name} has not the size that it says")
                yield spec


def _member(archive: Any, name: str, path: Path) -> Callable[[], NDArray[Any]]:
    def read() -> NDArray[Any]:
        try:
            array: NDArray[Any] = archive[name]
        except (ValueError, OSError, NotImplementedError, EOFError, zlib.error) as error:
            raise ConfigError(f"{path}: {name} is damaged, or more than a tensor") from error
        except zipfile.BadZipFile as error:
            raise ConfigError(f"{path}: {name} is damaged") from error
        return array

    return read
