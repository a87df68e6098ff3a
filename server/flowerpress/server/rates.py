"""Which codecs and how many bytes each client gets, round by round.

A policy's plan is solved again from what clients measure on their own updates, every so many
rounds; its budget follows the schedule and, with a deadline, each client's own uplink. Clients are
sent the plan once and afterwards what changed in it.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from logging import INFO, WARNING
from typing import Any

import numpy as np
from flwr.supercore import log
from numpy.typing import NDArray

from flowerpress.compression import FlowerpressError, Manifest, Preset, TensorSpec
from flowerpress.compression.rates.allocated import block_counts, needs_points
from flowerpress.compression.rates.blocks import blocked
from flowerpress.compression.rates.budget import least_bytes
from flowerpress.compression.rates.dial import harder_text
from flowerpress.compression.rates.plan import RatePlan
from flowerpress.compression.rates.points import Points, joined, median
from flowerpress.compression.rates.policy import Policy
from flowerpress.compression.rates.solve import solve
from flowerpress.compression.rates.statistics import packed_length, unpack_points
from flowerpress.compression.rates.wire import pack_plan, plan_digest
from flowerpress.protos import Receipt

__all__ = ["RateControl", "Terms"]

# Measurements that are asked for of each tensor: their median is what a plan is solved for.
_ASKED = 3
# Of its budget that a client is to spend on them.
_SHARE = 0.25
# Plans that clients may still hold and be sent the difference to.
_REMEMBERED = 16


@dataclass(frozen=True)
class Terms:
    """What one client is told of its codecs in one round; the fields are the instruction's."""

    uplink: str
    plan_digest: bytes = b""
    plan: bytes = b""
    target_bytes: int = 0
    settings: tuple[str, ...] = ()
    tensors: tuple[int, ...] = ()
    split: int = 0
    deadline: float = 0.0

    @property
    def nbytes(self) -> int:
        """Bytes of the plan, and of the settings to be measured."""
        return len(self.plan) + sum(len(text) + 2 for text in self.settings)


@dataclass
class _Known:
    """What is known of one client: the plan that it holds, and its uplink in bits a second."""

    plan: bytes = b""
    rate: float | None = None


@dataclass
class _Campaign:
    """What is collected for the next plan: a few measurements of every tensor.

    ``asked`` says which tensors each client of the round under way is to measure; ``points`` holds
    what came back, by tensor.
    """

    open: bool = False
    asked: dict[int, tuple[TensorSpec, ...]] = field(default_factory=dict)
    points: dict[str, list[Points]] = field(default_factory=dict)

    def count(self, name: str) -> int:
        """How often a tensor was measured, or is about to be."""
        pending = sum(any(spec.name == name for spec in own) for own in self.asked.values())
        return pending + len(self.points.get(name, ()))


class RateControl:
    """Terms for clients, from a preset, a plan or a policy.

    Args:
        choice: what the user asked for.
        text: how it is called in logs, and for a preset what clients are told.

    Attributes:
        rounds: of the run, for schedules; 0: not known.
        targets: node -> bytes that it may send in the round under way; empty without budgets.
    """

    def __init__(self, choice: Preset, text: str) -> None:
        self.rounds = 0
        self.targets: dict[int, int] = {}
        self._choice = choice
        self._text = text
        self._policy = choice if isinstance(choice, Policy) else None
        self._plan = choice if isinstance(choice, RatePlan) else None
        self._digest = b""
        self._plans: dict[bytes, RatePlan] = {}
        self._clients: dict[int, _Known] = {}
        self._round = 0
        self._factor = 1.0
        self._campaign = _Campaign()
        self._solved = False
        self._norms: list[float] = []
        self._last: Mapping[str, NDArray[Any]] = {}

    @property
    def plan_in_force(self) -> dict[str, str] | None:
        """Codec texts by tensor name, or None where a preset is all there is."""
        return None if self._plan is None else self._plan.texts

    def lossless(self, manifest: Manifest) -> bool:
        """Whether clients send their models bit for bit."""
        return (self._plan or self._choice).plan(manifest).lossless

    def begin(
        self, server_round: int, manifest: Manifest, model: Mapping[str, NDArray[Any]]
    ) -> None:
        """Settle what holds in a round, before the first client is told; again does nothing.

        Raises:
            ConfigError: the policy or plan is for another model.
        """
        if server_round == self._round and self._digest:
            return
        self.targets = {}
        self._round = server_round
        if self._plan is None and self._policy is not None:
            self._plan = self._policy.resolve(manifest)
        if self._plan is None:
            return
        if not self._digest:
            self._plan.plan(manifest)  # what clients could not use is refused before they are told
        if self._policy is not None:
            self._follow(model)
            self._factor = self._scheduled(server_round)
            if self._policy.budget is None:
                self._scale(self._policy.resolve(manifest))
            else:
                self._solve(manifest)
        digest = plan_digest(self._plan)
        self._plans.pop(digest, None)
        self._plans[digest] = self._plan
        while len(self._plans) > _REMEMBERED:
            del self._plans[next(iter(self._plans))]
        self._digest = digest
        self._campaign.asked = {}
        self._campaign.open = self._campaign.open or self._due()

    def terms(self, node: int, manifest: Manifest, *, afresh: bool, train: bool) -> Terms:
        """Return what a client is told.

        Args:
            node: the client.
            manifest: the model.
            afresh: whether it holds nothing, as far as is known.
            train: whether it is to send an update.
        """
        if self._plan is None:
            return Terms(self._text)
        known = self._clients.setdefault(node, _Known())
        held = None if afresh else self._plans.get(known.plan)
        plan = b""
        if held is None or known.plan != self._digest:
            plan = pack_plan(self._plan, held)
        terms = Terms(self._text[:200], self._digest, plan)
        if not train:
            return terms
        target = self._target(manifest, known.rate)
        if target is not None:
            self.targets[node] = target
            deadline = self._deadline * self._share
            terms = replace(terms, target_bytes=target, deadline=deadline)
        if asked := self._asks(node, manifest, target):
            assert self._policy is not None
            assert self._policy.budget is not None
            budget = self._policy.budget
            tensors = tuple(manifest.specs.index(spec) for spec in asked)
            terms = replace(terms, settings=budget.settings, tensors=tensors, split=budget.split)
        return terms

    def note(self, node: int, receipt: Receipt, manifest: Manifest) -> None:
        """Take from a client's receipt what it holds, its uplink, and what it measured.

        Raises:
            WireError: points that nobody measures, or that it was not asked for.
        """
        if self._plan is None:
            return
        known = self._clients.setdefault(node, _Known())
        known.plan = receipt.plan_digest if receipt.plan_digest in self._plans else b""
        if 1 <= receipt.uplink_rate <= 1e12:
            known.rate = receipt.uplink_rate
        if receipt.points and node in self._campaign.asked:
            assert self._policy is not None
            assert self._policy.budget is not None
            asked, settings = self._campaign.asked[node], self._policy.budget.settings
            cut = [self._cut(spec) for spec in asked]
            parts = [part for own in cut for part in own]
            sizes = np.array([part.size for part in parts], np.int64)
            points = unpack_points(receipt.points, [p.name for p in parts], settings, sizes)
            del self._campaign.asked[node]
            for spec, own in zip(asked, cut, strict=True):
                measured = points.of([part.name for part in own])
                self._campaign.points.setdefault(spec.name, []).append(measured)

    def _open(self, manifest: Manifest) -> list[TensorSpec]:
        assert self._policy is not None
        names = set(self._policy.open(manifest))
        return [spec for spec in manifest.specs if spec.name in names and spec.size]

    def _cut(self, spec: TensorSpec) -> tuple[TensorSpec, ...]:
        """Return the tensor, or the blocks of rows that it is measured in."""
        assert self._policy is not None
        assert self._policy.budget is not None
        own = Manifest((spec,))
        counts = block_counts(own, [spec.name], self._policy.budget.split)
        return blocked(own, [counts.get(spec.name, 1)]).specs

    def _target(self, manifest: Manifest, rate: float | None) -> int | None:
        if self._policy is None:
            return None if self._plan is None else self._plan.target_bytes
        target = self._policy.target(manifest, rate)
        if target is None:
            return None
        return max(int(target * self._share), least_bytes(manifest))

    @property
    def _deadline(self) -> float:
        """Seconds; 0: no limit."""
        budget = self._policy.budget if self._policy else None
        return 0.0 if budget is None else budget.deadline or 0.0

    @property
    def _share(self) -> float:
        """The schedule's factor; of a deadline, nobody gets more than all."""
        return min(1.0, self._factor) if self._deadline else self._factor

    def _due(self) -> bool:
        policy = self._policy
        if policy is None or policy.budget is None or not needs_points(policy):
            return False
        every = policy.budget.every
        return (self._round - 1) % every == 0 if every else not self._solved

    def _asks(self, node: int, manifest: Manifest, target: int | None) -> tuple[TensorSpec, ...]:
        """Return the tensors that a client is to measure, those that were measured least first.

        As many as a part of its budget suffices for, since what it says of them is paid from that.
        """
        campaign = self._campaign
        if not campaign.open or node in campaign.asked:
            return campaign.asked.get(node, ())
        assert self._policy is not None
        assert self._policy.budget is not None
        settings = len(self._policy.budget.settings)
        left = math.inf if target is None else target * _SHARE
        chosen = []
        wanted = [spec for spec in self._open(manifest) if campaign.count(spec.name) < _ASKED]
        for spec in sorted(wanted, key=lambda spec: campaign.count(spec.name)):
            left -= packed_length(len(self._cut(spec)), settings)
            if left < 0:
                break
            chosen.append(spec)
        if chosen:
            campaign.asked[node] = tuple(sorted(chosen, key=manifest.specs.index))
        return campaign.asked.get(node, ())

    def _scale(self, plan: RatePlan) -> None:
        """Without a budget, a schedule is about the plan's own steps and densities."""
        factor = 1 / self._factor
        entries = (
            replace(
                entry,
                codec=harder_text(entry.codec, factor),
                groups=tuple(harder_text(text, factor) for text in entry.groups),
            )
            for entry in plan.entries
        )
        self._plan = plan if factor == 1 else replace(plan, entries=tuple(entries))

    def _solve(self, manifest: Manifest) -> None:
        """Replace the plan by what the last measurements say; keep it where they say nothing."""
        policy, points = self._policy, self._campaign.points
        if policy is None or policy.budget is None or not points:
            return
        own = self._open(manifest)
        if any(spec.name not in points for spec in own):
            return  # the rest is asked about in this round
        self._campaign = _Campaign()
        first = policy.resolve(manifest)
        given = [t for known in self._clients.values() if (t := self._target(manifest, known.rate))]
        target = int(statistics.median(given)) if given else None
        try:
            plan = solve(
                manifest,
                joined([median(points[spec.name]) for spec in own]),
                allocator=policy.budget.allocator,
                target_bytes=target,
                max_nmse=policy.budget.max_nmse,
                weights=policy.tensor_weights(manifest) if policy.weights else {},
                error=policy.budget.error,
                fixed=policy.fixed(manifest),
            )
            shared = set(policy.open(manifest))
            entries = tuple(
                new if new.name in shared else old
                for new, old in zip(plan.entries, first.entries, strict=True)
            )
            plan = replace(plan, entries=entries)
            plan.plan(manifest)
        except FlowerpressError as error:
            log(WARNING, "flowerpress: the plan stays as it is: %s", error)
            return
        self._plan = plan
        self._solved = True
        log(INFO, "flowerpress: plan solved from what clients measured")

    def _follow(self, model: Mapping[str, NDArray[Any]]) -> None:
        """Remember how far the model moved, where a schedule wants to know."""
        schedule = self._policy.schedule if self._policy else None
        if schedule is None or not schedule.accordion:
            return
        if self._last:
            moved = sum(
                float(np.sum(np.square(model[name].astype(np.float64) - old)))
                for name, old in self._last.items()
                if old.dtype.kind == "f"
            )
            self._norms.append(float(np.sqrt(moved)))
        self._last = model

    def _scheduled(self, server_round: int) -> float:
        schedule = self._policy.schedule if self._policy else None
        if schedule is None:
            return 1.0
        return schedule.factor(server_round, max(self.rounds, server_round), self._norms)
