"""A plan in which tensors with the same preset are coded as that preset codes a model."""

from __future__ import annotations

from collections.abc import Sequence

from flowerpress.compression.codec import Codec
from flowerpress.compression.plan import Plan, Together
from flowerpress.compression.presets import Preset
from flowerpress.compression.spec import Manifest

__all__ = ["alike_plan"]


def alike_plan(manifest: Manifest, choices: Sequence[Preset]) -> Plan:
    """Return the plan of one preset for each tensor of ``manifest``.

    Tensors that share a preset share what it decides for all of them together: a global threshold,
    one step, one error.
    """
    groups: dict[Preset, list[int]] = {}
    for index, choice in enumerate(choices):
        groups.setdefault(choice, []).append(index)
    codecs: dict[int, Codec] = {}
    together = []
    for choice, indices in groups.items():
        plan = choice.plan(Manifest(tuple(manifest.specs[i] for i in indices)))
        codecs |= zip(indices, plan.codecs, strict=True)
        for each in plan.together:
            together.append(Together(each.rule, tuple(indices[i] for i in each.tensors)))
    return Plan(tuple(codecs[i] for i in range(len(manifest))), tuple(together))
