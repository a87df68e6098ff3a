"""Which codecs and how many bytes each client gets, round by round.

A policy's plan is solved again from what clients measure on their own updates, every so many
rounds; its budget follows the schedule and, with a deadline, each client's own uplink. Clients are
sent the plan once and afterwards what changed in it.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, replace
from logging import INFO, WARNING
from typing import Any

import numpy as np
from flwr.supercore import log
from numpy.typing import NDArray

from flowerpress.compression import FlowerpressError, Manifest, Preset
from flowerpress.compression.rates.allocated import needs_points
from flowerpress.compression.rates.budget import BudgetSpec, least_bytes
from flowerpress.compression.rates.dial import harder_text
from flowerpress.compression.rates.plan import RatePlan
from flowerpress.compression.rates.points import Points
from flowerpress.compression.rates.policy import Policy
from flowerpress.compression.rates.solve import solve
from flowerpress.compression.rates.wire import pack_plan, plan_digest
from flowerpress.protos import Receipt
from flowerpress.protos.store import Snapshot
from flowerpress.server.campaign import Campaign
from flowerpress.server.snapshots import joined, manifest_of, pack_manifest, part

__all__ = ["RateControl", "Terms"]

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
        self._campaign: Campaign | None = None
        self._manifest: Manifest | None = None
        self._packed: dict[bytes, bytes] = {}
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

    def state(self) -> Snapshot:
        """Return the plan in force, who holds which, and what the next one will be solved from."""
        campaign, manifest = self._campaign, self._manifest
        facts = {
            "plan": self._plan.to_json() if self._plan else None,
            "digest": self._digest.hex(),
            "plans": [[key.hex(), plan.to_json()] for key, plan in self._plans.items()],
            "clients": [[n, each.plan.hex(), each.rate] for n, each in self._clients.items()],
            "targets": list(self.targets.items()),
            "round": self._round,
            "factor": self._factor,
            "solved": self._solved,
            "norms": self._norms,
            "campaign": pack_manifest(manifest) if campaign and manifest else None,
        }
        moving = {name: a for name, a in self._last.items() if a.dtype.kind == "f"}
        own = Snapshot(facts, moving)
        return joined({"own": own, "campaign": campaign.state() if campaign else Snapshot()})

    def restore(self, snapshot: Snapshot) -> None:
        """Go on from what ``state()`` returned, of the same preset, plan or policy."""
        own = part(snapshot, "own")
        facts = own.facts
        self._plan = RatePlan.from_json(facts["plan"]) if facts["plan"] else None
        self._digest = bytes.fromhex(facts["digest"])
        self._plans = {bytes.fromhex(key): RatePlan.from_json(p) for key, p in facts["plans"]}
        self._clients = {n: _Known(bytes.fromhex(p), rate) for n, p, rate in facts["clients"]}
        self.targets = dict(facts["targets"])
        self._round, self._factor = facts["round"], facts["factor"]
        self._solved, self._norms = facts["solved"], facts["norms"]
        self._last = own.arrays
        self._campaign = None
        budget = self._policy.budget if self._policy else None
        if facts["campaign"] and self._policy and budget:
            self._manifest = manifest = manifest_of(facts["campaign"])
            self._campaign = Campaign(budget, manifest, self._policy.open(manifest))
            self._campaign.restore(part(snapshot, "campaign"))

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
        self._manifest = manifest
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
                self._solve(self._policy, self._policy.budget, manifest)
        digest = plan_digest(self._plan)
        self._plans.pop(digest, None)
        self._plans[digest] = self._plan
        while len(self._plans) > _REMEMBERED:
            del self._plans[next(iter(self._plans))]
        self._digest = digest
        self._packed = {}
        if self._campaign is not None:
            self._campaign.begin_round()

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
        held = b"" if afresh or known.plan not in self._plans else known.plan
        plan = b""
        if held != self._digest:
            # Clients that hold the same plan are sent the same bytes.
            if held not in self._packed:
                self._packed[held] = pack_plan(self._plan, self._plans.get(held))
            plan = self._packed[held]
        terms = Terms(self._text[:200], self._digest, plan)
        if not train:
            return terms
        target = self._target(manifest, known.rate)
        if target is not None:
            self.targets[node] = target
            deadline = self._deadline * self._share
            terms = replace(terms, target_bytes=target, deadline=deadline)
        budget = self._policy.budget if self._policy else None
        if budget and self._campaign and (asked := self._campaign.ask(node, target)):
            terms = replace(terms, settings=budget.settings, tensors=asked, split=budget.split)
        return terms

    def note(self, node: int, receipt: Receipt) -> None:
        """Take from a client's receipt what it holds, its uplink, and what it measured.

        Raises:
            WireError: points that nobody measures.
        """
        if self._plan is None:
            return
        known = self._clients.setdefault(node, _Known())
        known.plan = receipt.plan_digest if receipt.plan_digest in self._plans else b""
        if 1 <= receipt.uplink_rate <= 1e12:
            known.rate = receipt.uplink_rate
        if receipt.points and self._campaign:
            self._campaign.take(node, receipt.points)

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

    def _due(self, policy: Policy, every: int) -> bool:
        if not needs_points(policy):
            return False
        return (self._round - 1) % every == 0 if every else not self._solved

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

    def _solve(self, policy: Policy, budget: BudgetSpec, manifest: Manifest) -> None:
        """Replace the plan by what the last measurements say; keep it where they say nothing."""
        campaign = self._campaign
        if campaign is not None and campaign.complete:
            self._campaign = None
            self._take(policy, budget, manifest, campaign.points)
        if self._campaign is None and self._due(policy, budget.every):
            self._campaign = Campaign(budget, manifest, policy.open(manifest))

    def _take(self, policy: Policy, budget: BudgetSpec, manifest: Manifest, points: Points) -> None:
        first = policy.resolve(manifest)
        given = [t for known in self._clients.values() if (t := self._target(manifest, known.rate))]
        target = int(statistics.median(given)) if given else None
        try:
            plan = solve(
                manifest,
                points,
                allocator=budget.allocator,
                target_bytes=target,
                max_nmse=budget.max_nmse,
                weights=policy.tensor_weights(manifest) if policy.weights else {},
                error=budget.error,
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
