"""Codecs chosen for each update anew, by measuring a menu on it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.codec import Context
from flowerpress.compression.plan import Coded, Joint, Plan, Together
from flowerpress.compression.presets import Preset, preset
from flowerpress.compression.presets.base import RAW
from flowerpress.compression.rates.alike import alike_plan
from flowerpress.compression.rates.blocks import blocked, in_blocks, joined
from flowerpress.compression.rates.dial import Dialled
from flowerpress.compression.rates.message import message_bytes
from flowerpress.compression.rd.codec import RateDistortion
from flowerpress.compression.spec import Manifest, TensorSpec

if TYPE_CHECKING:
    from flowerpress.compression.rates.policy import Policy

__all__ = ["Allocated", "allocated", "block_counts", "needs_points"]

_OPEN = RateDistortion(1.0)
"""Stands for whatever is chosen: lossy and biased."""
_MOST_BLOCKS = 64  # each may name a codec of its own


def allocated(policy: Policy, manifest: Manifest) -> Plan:
    """Return the plan of a policy with a budget where nothing was measured before.

    What the budget shares is measured on each update, unless ``rd`` can find the best level by
    itself: with squared errors that is one step for all tensors, divided by the roots of their
    weights (reverse water-filling), so there is nothing to be chosen from a menu.

    Raises:
        ConfigError: as ``Policy.check``.
    """
    plan = policy.resolve(manifest)
    budget = policy.budget
    if budget is None or not needs_points(policy):
        return plan.plan(manifest)
    shared = set(policy.open(manifest))
    counts = block_counts(manifest, shared, budget.split)
    groups = [counts.get(e.name, max(1, len(e.groups))) for e in plan.entries]
    cut = blocked(manifest, groups)
    fixed: list[tuple[str, Preset]] = []
    weights: list[tuple[str, float]] = []
    own = policy.tensor_weights(manifest)
    parts = iter(cut.specs)
    for entry, count in zip(plan.entries, groups, strict=True):
        names = [next(parts).name for _ in range(count)]
        if entry.name in shared:
            weights += [(name, own[entry.name]) for name in names]
        else:
            texts = entry.groups or (entry.codec,)
            fixed += [(name, preset(text)) for name, text in zip(names, texts, strict=True)]
    rule = Allocated(
        budget.settings,
        plan.target_bytes,
        budget.max_nmse,
        tuple(fixed),
        budget.allocator,
        budget.error,
        tuple(weights) if policy.weights else (),
        counts=tuple(groups),
    )
    kept = dict(fixed)
    codecs = [kept[spec.name].codec(spec) if spec.name in kept else _OPEN for spec in cut.specs]
    codecs = [c if s.is_float else RAW for c, s in zip(codecs, cut.specs, strict=True)]
    everything = Together(rule, tuple(range(len(cut))))
    return in_blocks(Plan(tuple(codecs), (everything,)), manifest, groups)


def needs_points(policy: Policy) -> bool:
    """Whether what a policy means for a model depends on what its menu costs there.

    Not without a budget, and not where ``rd`` finds the best level by itself.
    """
    budget = policy.budget
    return budget is not None and not (
        budget.menu == "rd"
        and (budget.allocator, budget.error, budget.split) == ("lambda", "squared", 0)
        and (budget.max_nmse is None or not policy.weights)
    )


def block_counts(manifest: Manifest, names: Collection[str], split: int) -> dict[str, int]:
    """Return in how many blocks of rows each large tensor is cut, by name.

    Args:
        manifest: the model.
        names: of the tensors that may be cut.
        split: elements that a block has at most, as far as rows and 64 blocks allow; 0: none.
    """
    if not split:
        return {}
    return {
        spec.name: min(-(-spec.size // split), spec.shape[0], _MOST_BLOCKS)
        for spec in manifest.specs
        if spec.name in names and len(spec.shape) > 1 and spec.size > split and spec.shape[0] > 1
    }


@dataclass(frozen=True)
class Allocated(Joint):
    """Codes every tensor with every codec of a menu, and keeps the best choice within a budget.

    It costs the encoding of the whole menu for each update: for small models, for formats, and
    where no server solves a plan for everybody.

    Attributes:
        menu: codec texts that the open tensors choose from.
        target_bytes: of the whole message, or None with ``max_nmse``.
        max_nmse: of the open tensors together.
        fixed: by name, tensors that do not choose, and their codecs.
        allocator, error: as in ``solve``.
        weights: by name, how much the squared error of a tensor counts.
        first: codecs of all tensors that are taken without measuring while they fit.
        counts: of how many blocks each tensor of the message consists; empty: all are whole.
    """

    menu: tuple[str, ...]
    target_bytes: int | None = None
    max_nmse: float | None = None
    fixed: tuple[tuple[str, Preset], ...] = ()
    allocator: str = "lambda"
    error: str = "squared"
    weights: tuple[tuple[str, float], ...] = ()
    first: tuple[Preset, ...] = ()
    counts: tuple[int, ...] = ()

    def encode(
        self,
        specs: Sequence[TensorSpec],
        tensors: Sequence[NDArray[Any]],
        contexts: Sequence[Context],
    ) -> list[Coded]:
        """Return all tensors coded.

        Raises:
            ConfigError: a budget that is exceeded even at the hardest.
            EncodeError: a tensor cannot be encoded.
        """
        own = Manifest(tuple(specs))
        if self.first:
            coded = alike_plan(own, self.first).encode(own, tensors, contexts)
            whole = joined(coded, self.counts) if self.counts else coded
            if self.target_bytes is None or message_bytes(whole) <= self.target_bytes:
                return coded
        choices = self._choices(own, tensors, contexts)
        if self.target_bytes is None:
            return alike_plan(own, choices).encode(own, tensors, contexts)
        named = dict(self.fixed)
        kept = tuple(spec.name in named for spec in specs)
        return Dialled(tuple(choices), self.target_bytes, self.counts, kept).encode(
            specs, tensors, contexts
        )

    def _choices(
        self, manifest: Manifest, tensors: Sequence[NDArray[Any]], contexts: Sequence[Context]
    ) -> list[Preset]:
        from flowerpress.compression.rates.menu import measure
        from flowerpress.compression.rates.solve import solve

        fixed = dict(self.fixed)
        open_ = [
            i for i, s in enumerate(manifest.specs) if s.is_float and s.size and s.name not in fixed
        ]
        some = Manifest(tuple(manifest.specs[i] for i in open_))
        by_name = {manifest.specs[i].name: i for i in open_}
        points = measure(
            some,
            {name: tensors[i] for name, i in by_name.items()},
            self.menu,
            rng=contexts[0].rng or np.random.default_rng(0) if contexts else None,
            references={
                n: r for n, i in by_name.items() if (r := contexts[i].reference) is not None
            },
            warm={n: w for n, i in by_name.items() if (w := contexts[i].warm) is not None},
        )
        budget = self.target_bytes
        if budget is not None:
            rest = [i for i in range(len(manifest)) if i not in set(open_)]
            beside = Manifest(tuple(manifest.specs[i] for i in rest))
            done = alike_plan(beside, [fixed.get(s.name, preset("none")) for s in beside.specs])
            budget -= message_bytes(
                done.encode(beside, [tensors[i] for i in rest], [contexts[i] for i in rest])
            )
        plan = solve(
            some,
            points,
            allocator=self.allocator,
            target_bytes=None if budget is None else max(1, budget),
            max_nmse=self.max_nmse,
            weights=dict(self.weights),
            error=self.error,
        )
        settled = {entry.name: preset(entry.codec) for entry in plan.entries}
        return [
            settled.get(spec.name) or fixed.get(spec.name) or preset("none")
            for spec in manifest.specs
        ]
