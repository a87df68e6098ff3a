"""Tensors cut into blocks of rows, each with a codec of its own: layers within a layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from flowerpress.compression.codec import Context
from flowerpress.compression.errors import ConfigError
from flowerpress.compression.grouped import Grouped, rows_of
from flowerpress.compression.plan import Coded, Joint, Plan, Together
from flowerpress.compression.spec import Manifest, TensorSpec

__all__ = ["blocked", "in_blocks", "joined"]


def blocked(manifest: Manifest, counts: Sequence[int]) -> Manifest:
    """Return the manifest of all blocks: a tensor with a count of 1 is its own.

    Raises:
        ConfigError: more blocks than the tensor has rows.
    """
    return Manifest(
        tuple(
            part
            for spec, count in zip(manifest.specs, counts, strict=True)
            for part in (_parts(spec, count) if count > 1 else (spec,))
        )
    )


def in_blocks(inner: Plan, manifest: Manifest, counts: Sequence[int]) -> Plan:
    """Return the plan of ``manifest`` that codes blocks as ``inner`` does.

    Args:
        inner: the plan of ``blocked(manifest, counts)``.
        manifest: the tensors in one piece.
        counts: blocks of each.
    """
    if all(count == 1 for count in counts):
        return inner
    at, codecs = 0, []
    for count in counts:
        own = inner.codecs[at : at + count]
        codecs.append(own[0] if count == 1 else Grouped(own))
        at += count
    rule = _InBlocks(inner, tuple(counts))
    return Plan(tuple(codecs), (Together(rule, tuple(range(len(manifest)))),))


def joined(coded: Sequence[Coded], counts: Sequence[int]) -> list[Coded]:
    """Return coded tensors from their coded blocks.

    Raises:
        ConfigError: the blocks of a tensor have too many different codecs to be named.
    """
    out, at = [], 0
    for count in counts:
        some = coded[at : at + count]
        at += count
        out.append(some[0] if count == 1 else Grouped.join(some))
    return out


@dataclass(frozen=True)
class _InBlocks(Joint):
    inner: Plan
    counts: tuple[int, ...]

    def encode(
        self,
        specs: Sequence[TensorSpec],
        tensors: Sequence[NDArray[Any]],
        contexts: Sequence[Context],
    ) -> list[Coded]:
        """Cut, code all blocks, and put those of a tensor together."""
        manifest = blocked(Manifest(tuple(specs)), self.counts)
        cut: list[NDArray[Any]] = []
        own: list[Context] = []
        for spec, x, context, count in zip(specs, tensors, contexts, self.counts, strict=True):
            if count == 1:
                cut.append(x)
                own.append(context)
                continue
            for start, stop in rows_of(spec, count):
                cut.append(x[start:stop])
                # What a codec goes on from is of a whole tensor, not of its blocks.
                own.append(
                    Context(
                        context.rng,
                        None if context.reference is None else context.reference[start:stop],
                        None if context.relevance is None else context.relevance[start:stop],
                    )
                )
        return joined(self.inner.encode(manifest, cut, own), self.counts)


def _parts(spec: TensorSpec, count: int) -> list[TensorSpec]:
    if not spec.shape or count > spec.shape[0]:
        rows = spec.shape[0] if spec.shape else 0
        raise ConfigError(f"{spec.name}: {count} groups of rows, and it has {rows} rows")
    return [
        TensorSpec(f"{spec.name}[{start}:{stop}]", (stop - start, *spec.shape[1:]), spec.dtype)
        for start, stop in rows_of(spec, count)
    ]
