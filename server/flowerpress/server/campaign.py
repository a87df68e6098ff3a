"""What clients are asked to measure for the next plan, and what they have answered."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np

from flowerpress.compression import Manifest
from flowerpress.compression.rates.allocated import block_counts
from flowerpress.compression.rates.blocks import blocked
from flowerpress.compression.rates.budget import BudgetSpec
from flowerpress.compression.rates.points import Points, joined, median
from flowerpress.compression.rates.statistics import packed_length, unpack_points
from flowerpress.protos.store import Snapshot

__all__ = ["Campaign"]

# Measurements that are asked for of each tensor: their median is what a plan is solved for.
_ASKED = 3
# Of its budget that a client is to spend on them.
_SHARE = 0.25


class Campaign:
    """Collects what a menu costs on every tensor that shares a budget.

    It takes as many rounds as it takes: where budgets are small and tensors many, each client
    measures some of them.

    Args:
        budget: brings the menu.
        manifest: the model.
        names: of the tensors that share the budget.
    """

    def __init__(self, budget: BudgetSpec, manifest: Manifest, names: tuple[str, ...]) -> None:
        self._settings = budget.settings
        counts = block_counts(manifest, names, budget.split)
        shared = set(names)
        # By index in the manifest: the tensor, or the blocks of rows that it is measured in.
        self._parts = {
            index: blocked(Manifest((spec,)), [counts.get(spec.name, 1)]).specs
            for index, spec in enumerate(manifest.specs)
            if spec.name in shared and spec.size
        }
        self._points: dict[int, list[Points]] = {index: [] for index in self._parts}
        self._asked: dict[int, tuple[int, ...]] = {}
        self._counts: Counter[int] = Counter()

    def state(self) -> Snapshot:
        """Return what was measured; who is asked begins anew with every round."""
        fields = ("bytes", "errors", "energies")
        arrays = {
            f"{index}/{n}/{field}": getattr(points, field)
            for index, found in self._points.items()
            for n, points in enumerate(found)
            for field in fields
        }
        return Snapshot({"found": [[i, len(found)] for i, found in self._points.items()]}, arrays)

    def restore(self, snapshot: Snapshot) -> None:
        """Go on from what ``state()`` returned of a campaign for the same model and budget."""
        arrays = snapshot.arrays
        for index, count in snapshot.facts["found"]:
            parts = self._parts[index]
            names = tuple(each.name for each in parts)
            sizes = np.array([each.size for each in parts], np.int64)
            self._points[index] = [
                Points(
                    names,
                    tuple(self._settings),
                    arrays[f"{index}/{n}/bytes"],
                    arrays[f"{index}/{n}/errors"],
                    arrays[f"{index}/{n}/energies"],
                    sizes,
                )
                for n in range(count)
            ]
        self.begin_round()

    @property
    def complete(self) -> bool:
        """Whether every tensor was measured."""
        return bool(self._points) and all(self._points.values())

    @property
    def points(self) -> Points:
        """The medians; only once it is complete."""
        return joined([median(found) for found in self._points.values()])

    def begin_round(self) -> None:
        """Forget who was asked: what was not answered is asked again, of whoever comes."""
        self._asked = {}
        self._counts = Counter({index: len(found) for index, found in self._points.items()})

    def ask(self, node: int, target: int | None) -> tuple[int, ...]:
        """Return the tensors that a client is to measure, those measured least first chosen.

        As many as a part of its budget suffices for, since what it says of them is paid from that.
        Asked again in a round, it is the same ones.

        Args:
            node: the client.
            target: bytes that its message may have; None: no limit.
        """
        if node not in self._asked:
            left = math.inf if target is None else target * _SHARE
            chosen = []
            wanted = [index for index in self._parts if self._counts[index] < _ASKED]
            for index in sorted(wanted, key=self._counts.__getitem__):
                left -= packed_length(len(self._parts[index]), len(self._settings))
                if left < 0:
                    break
                chosen.append(index)
            if chosen:
                self._asked[node] = tuple(sorted(chosen))
                self._counts.update(chosen)
        return self._asked.get(node, ())

    def take(self, node: int, body: bytes) -> None:
        """Take what a client has measured; of one that was not asked, nothing.

        Raises:
            WireError: points that nobody measures.
        """
        asked = self._asked.get(node)
        if asked is None:
            return
        parts = [part for index in asked for part in self._parts[index]]
        sizes = np.array([part.size for part in parts], np.int64)
        points = unpack_points(body, [part.name for part in parts], self._settings, sizes)
        del self._asked[node]
        for index in asked:
            self._points[index].append(points.of([part.name for part in self._parts[index]]))
