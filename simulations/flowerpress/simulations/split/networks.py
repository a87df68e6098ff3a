"""Where a task's network can be cut, and the cut network itself."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from flowerpress.compression import ConfigError, UnknownNameError
from flowerpress.compression.bottleneck import Cut, bottleneck
from flowerpress.compression.bottleneck.named import replaces
from flowerpress.simulations.split.tokens import Merge, Unmerge
from flowerpress.simulations.tasks import Data, Task

__all__ = [
    "INPUT",
    "Parts",
    "cut_network",
    "cut_task",
    "features_at",
    "parts_of",
    "places",
]

Parts = Sequence[tuple[str, nn.Module]]

INPUT = "input"
"""The place before the first part."""


def parts_of(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the named parts that ``model`` runs one after the other.

    They are what its method ``parts()`` returns, or the children of an ``nn.Sequential``. Parts
    share their modules with the model: what is loaded into one is in the other.

    Raises:
        ConfigError: it has neither.
    """
    own = getattr(model, "parts", None)
    if callable(own):
        return [(str(name), part) for name, part in own()]
    if isinstance(model, nn.Sequential):
        return list(model.named_children())
    raise ConfigError(
        f"{type(model).__name__} cannot be cut: build an nn.Sequential, or give it a method "
        "parts() that returns (name, module) pairs to be run one after the other"
    )


def cut_task(
    task: Task, data: Data, *, at: str | None, bottleneck: str, mode: str = "vanilla"
) -> Cut:
    """Return the task's network, newly built and cut; see ``cut_network``.

    ``at`` None is the task's own place. ``data`` tells the shape of an input.
    """
    parts = parts_of(task.build())
    place = at or task.cut_at
    if place is None:
        raise ConfigError(
            f"where is the network of task {task.name} cut? Say at=..., one of "
            f"{', '.join(places(parts))}, or set the class's cut_at"
        )
    sample = task.prepare(data.train.inputs[:2])
    return cut_network(parts, sample, place, bottleneck, mode)


def cut_network(parts: Parts, sample: Tensor, at: str, text: str, mode: str = "vanilla") -> Cut:
    """Return ``parts`` as head, bottleneck and tail.

    Args:
        parts: named modules to be run one after the other.
        sample: a prepared batch, for the shapes.
        at: the part after which the network is cut; ``first-last`` also takes out the parts behind
            ``first`` up to and with ``last``, which the bottleneck then stands for (``input`` is
            the place before the first part); ``part/2`` averages every two steps of a sequence
            before they cross.
        text: the bottleneck, as ``bottleneck()`` takes it.
        mode: ``vanilla``, or ``u-shaped``: the last part stays on the device.

    Raises:
        UnknownNameError: no such part.
        ConfigError: nothing would be left on a side, or the bottleneck cannot stand there.
    """
    place, _, merged = at.partition("/")
    first, _, last = place.partition("-")
    names = [INPUT, *(name for name, _ in parts)]
    for name in filter(None, (first, last)):
        if name not in names:
            raise UnknownNameError("part of the network", name, names)
    start, stop = names.index(first), names.index(last or first)
    ends = len(parts) - (mode == "u-shaped")
    if stop < start or stop >= ends:
        raise ConfigError(
            f"at = {at!r} leaves the server nothing to do; the parts are {', '.join(names)}"
        )
    if stop > start and not replaces(text):
        raise ConfigError(
            f"at = {at!r} takes parts out, and {text!r} cannot stand for them: "
            "entropic, reduction and vq can"
        )
    head = nn.Sequential(*(part for _, part in parts[:start]))
    tail = nn.Sequential(*(part for _, part in parts[stop:ends]))
    with torch.no_grad():
        enters = head(sample)
        leaves = nn.Sequential(*(part for _, part in parts[start:stop]))(enters)
    if merged:
        if not merged.isdecimal() or int(merged) < 2:
            raise ConfigError(f"at = {at!r}: behind the slash stands how many steps become one")
        head.append(Merge(int(merged)))
        tail.insert(0, Unmerge(int(merged), enters.shape[-1]))
        enters = leaves = head(sample)
    made = bottleneck(text, tuple(enters.shape[1:]), tuple(leaves.shape[1:]))
    return Cut(head, made, tail, parts[-1][1] if mode == "u-shaped" else None)


def places(parts: Parts) -> list[str]:
    """Return the names after which a network can be cut."""
    return [name for name, _ in list(parts)[:-1]]


def features_at(parts: Parts, inputs: Tensor) -> dict[str, Tensor]:
    """Return what each part puts out for a prepared batch, by its name."""
    out: dict[str, Tensor] = {}
    for name, part in parts:
        inputs = out[name] = part(inputs)
    return out
