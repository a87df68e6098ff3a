"""What is measured by itself: a tensor, or a block of the rows of a very large one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression import Manifest, TensorSpec
from flowerpress.compression.errors import ConfigError
from flowerpress.compression.grouped import rows_of

__all__ = ["Part", "groups_of", "parts_named", "parts_of"]

_BLOCK = re.compile(r"(.*)\[(\d+):(\d+)\]", re.DOTALL)


@dataclass(frozen=True)
class Part:
    """A tensor, or the rows ``first`` to ``last`` (excluded) of one; float32 like all updates.

    ``spec``: of the part itself, ``tensor``: the name of what it is a part of.
    """

    spec: TensorSpec
    tensor: str
    rows: tuple[int, int] | None = None

    @property
    def name(self) -> str:
        """The tensor's name, with its rows where it is a block: ``fc.weight[0:64]``."""
        return self.spec.name

    def of(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return this part of the tensor's values; a view."""
        return values if self.rows is None else values[self.rows[0] : self.rows[1]]

    def spread(self, values: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Return an array of the whole tensor's shape: these values, and zeros elsewhere."""
        if self.rows is None:
            return values
        whole = np.zeros(shape, np.float32)
        whole[self.rows[0] : self.rows[1]] = values
        return whole


def groups_of(specs: Sequence[TensorSpec], count: int) -> dict[str, int]:
    """Return into how many blocks of rows tensors are cut that hold most of all elements.

    ``count``: how many blocks; 0 and 1 cut nothing. A tensor has no more blocks than rows.
    """
    total = sum(spec.size for spec in specs)
    return {
        spec.name: min(count, spec.shape[0])
        for spec in specs
        if spec.shape and min(count, spec.shape[0]) > 1 and 2 * spec.size > total
    }


def parts_of(specs: Sequence[TensorSpec], groups: Mapping[str, int]) -> tuple[Part, ...]:
    """Return the parts of floating-point tensors, in order; ``groups``: blocks by tensor."""
    found: list[Part] = []
    for spec in specs:
        count = groups.get(spec.name, 1)
        if count < 2:
            found.append(Part(TensorSpec(spec.name, spec.shape), spec.name))
            continue
        for first, last in rows_of(spec, count):
            own = TensorSpec(f"{spec.name}[{first}:{last}]", (last - first, *spec.shape[1:]))
            found.append(Part(own, spec.name, (first, last)))
    return tuple(found)


def parts_named(manifest: Manifest, names: Sequence[str]) -> tuple[Part, ...]:
    """Return the parts that are called ``names``.

    Raises:
        ConfigError: they are not all floating-point tensors of the model, in order, whole or cut
            into equal blocks.
    """
    floats = [spec for spec in manifest.specs if spec.is_float]
    known = {spec.name for spec in floats}
    blocks: dict[str, int] = {}
    for name in names:
        if name not in known and (match := _BLOCK.fullmatch(name)):
            blocks[match[1]] = blocks.get(match[1], 0) + 1
    for name, count in blocks.items():
        rows = next((s.shape[0] for s in floats if s.name == name and s.shape), 0)
        if count > rows:
            raise ConfigError(f"there are {count} blocks of {name!r}, which has {rows} rows")
    parts = parts_of(floats, blocks)
    if [part.name for part in parts] != list(names):
        expected = {part.name for part in parts}
        wrong = [name for name in names if name not in expected] or sorted(expected - set(names))
        about = f", such as {wrong[0]!r}" if wrong else "; their order is another"
        raise ConfigError(f"what was measured are not the model's tensors{about}")
    return parts
