"""A policy: what a person writes about the codecs of a model, in TOML.

Ordered rules give tensors a codec by name. What becomes of the rest is said by ``vectors`` and
``default``, or by a budget that they share. What a policy means for one model is a ``RatePlan``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from flowerpress.compression.codec import Codec
from flowerpress.compression.errors import ConfigError, UnknownNameError
from flowerpress.compression.plan import Plan
from flowerpress.compression.presets import Preset, preset
from flowerpress.compression.rates.budget import BudgetSpec
from flowerpress.compression.rates.patterns import (
    check_pattern,
    matches,
)
from flowerpress.compression.rates.plan import Entry, RatePlan
from flowerpress.compression.rates.reading import number, setting
from flowerpress.compression.rates.rules import EXACT, Rule, first_matches
from flowerpress.compression.rates.schedule import Schedule
from flowerpress.compression.spec import Manifest, TensorSpec

__all__ = ["MOST_RULES", "WEIGHTS", "Policy"]

MOST_RULES = 1000
WEIGHTS = (1e-6, 1e6)
"""The least and the largest weight of a tensor's squared error."""

_DEFAULT = "rd"


@dataclass(frozen=True)
class Policy(Preset):
    """Patterns over tensor names and their codecs, and a budget for all others.

    A tensor is decided about by the first of these that applies: a rule, in their order;
    ``vectors``, if it has at most one axis; then ``base``, ``budget`` or ``default``. Tensors of
    integers are always sent exactly.

    Attributes:
        rules: the first whose pattern matches decides.
        default: the codec of what nothing else decides about. Beside a budget, what tensors start
            from before anything was measured. None: ``rd``, or what suits the budget's menu.
        vectors: the codec of biases, norms and scalars; None: as all others.
        base: a plan to start from; beside a budget it is the first guess.
        budget: what the tensors share that neither a rule nor ``vectors`` decides about.
        weights: (pattern, weight) of squared errors under the budget, the first match counts.
        schedule: by how much the budget changes from round to round.
        where: the file's name, for messages; of no importance for equality.

    Raises:
        ConfigError: a value that is not allowed, or that has no effect beside the others.
    """

    rules: tuple[Rule, ...] = ()
    default: str | None = None
    vectors: str | None = None
    base: RatePlan | None = None
    budget: BudgetSpec | None = None
    weights: tuple[tuple[str, float], ...] = ()
    schedule: Schedule | None = None
    where: str = field(default="policy", compare=False)

    def __post_init__(self) -> None:
        for what, count in (("rules", len(self.rules)), ("weights", len(self.weights))):
            if count > MOST_RULES:
                raise ConfigError(f"{count} {what}; at most {MOST_RULES} are possible")
        for name in ("default", "vectors"):
            if getattr(self, name) is not None:
                setting(getattr(self, name), name)
        for pattern, weight in self.weights:
            check_pattern(pattern)
            number(weight, f"weights.{pattern}", *WEIGHTS)
        if self.base is not None and self.default is not None:
            raise ConfigError(
                "default is never used beside plan, which names every tensor; leave one of them out"
            )
        if self.weights and self.budget is None:
            raise ConfigError("[weights] say how errors count under a [budget]; there is none")

    @classmethod
    def from_toml(cls, text: str, where: str = "policy", folder: Path | None = None) -> Policy:
        """Read a policy from TOML; ``where`` begins the messages.

        Args:
            text: at most 1 MiB of TOML.
            where: the name of the file.
            folder: where a plan named in it is looked for; None: it may not name one.

        Raises:
            UnknownNameError: a key, codec, menu or the like that does not exist.
            ConfigError: not TOML, or a value that is not allowed.
        """
        from flowerpress.compression.rates.policy_file import loads

        return loads(text, where, folder)

    @classmethod
    def read(cls, path: Path | str) -> Policy:
        """Read a file of at most 1 MiB.

        Raises:
            ConfigError: it cannot be read, or holds no policy.
        """
        from flowerpress.compression.rates.policy_file import read

        return read(Path(path))

    def to_toml(self, plan: str | None = None) -> str:
        """Return TOML that ``from_toml`` reads back.

        Args:
            plan: the path to write for ``base``, which is a file of its own.

        Raises:
            ConfigError: there is a ``base`` and no path for it.
        """
        from flowerpress.compression.rates.policy_file import dumps

        return dumps(self, plan)

    @property
    def uses_reference(self) -> bool:
        """Whether any codec gets shorter by a tensor that both ends hold."""
        return any(choice.uses_reference for choice in self._choices)

    @cached_property
    def _choices(self) -> tuple[Preset, ...]:
        texts = [rule.codec for rule in self.rules]
        texts += [text for text in (self.vectors, self.default) if text is not None]
        if self.budget is not None:
            texts += [*self.budget.settings, self._guess]
        elif self.base is None:
            texts.append(self._guess)
        made = tuple(preset(text) for text in dict.fromkeys(texts))
        return made if self.base is None else (*made, self.base)

    @cached_property
    def _based(self) -> dict[str, Entry]:
        return {entry.name: entry for entry in self.base.entries} if self.base else {}

    @property
    def _guess(self) -> str:
        """What a tensor starts from that only the budget or the default decides about."""
        if self.default is not None:
            return self.default
        if self.budget is None:
            return _DEFAULT
        settings = self.budget.settings
        if self.budget.menu == "rd":
            nmse = self.budget.max_nmse
            return _DEFAULT if nmse is None else f"{_DEFAULT}(max_nmse={nmse!r})"
        return settings[len(settings) // 2]

    def codec(self, spec: TensorSpec) -> Codec:
        """Return the codec of one floating-point tensor, as ``resolve`` settles it."""
        return preset(self._entry(spec).codec).codec(spec)

    def check(self, manifest: Manifest) -> None:
        """Refuse a model that this policy was not written for.

        Raises:
            ConfigError: a pattern that matches nothing, or nothing that earlier ones leave; a lossy
                codec for integers only; more blocks than a tensor has rows; a plan for another
                model; a budget that decides about nothing, or is less than an empty message.
        """
        try:
            self._check(manifest)
        except ConfigError as error:
            raise ConfigError(f"{self.where}: {error}") from None

    def _check(self, manifest: Manifest) -> None:
        patterns = [(f"tensor[{i}].match", rule.match) for i, rule in enumerate(self.rules)]
        own = first_matches(patterns, [spec.name for spec in manifest.specs])
        for i, rule in enumerate(self.rules):
            names = set(own[i])
            rule.check(f"tensor[{i}]", [spec for spec in manifest.specs if spec.name in names])
        if self.base is not None:
            self.base.check(manifest)
        if self.budget is not None:
            shared = self.open(manifest)
            if not shared:
                raise ConfigError(
                    "the budget decides about nothing: rules or vectors give every tensor a codec; "
                    "leave out [budget], or narrow a pattern"
                )
            self.budget.check(manifest)
            first_matches([("weights", pattern) for pattern, _ in self.weights], shared)
            self._check_scaled(manifest)

    def _check_scaled(self, manifest: Manifest) -> None:
        """Refuse a budget under which nothing says how the steps of tensors stand to each other."""
        from flowerpress.compression.rates.allocated import needs_points
        from flowerpress.compression.rates.dial import Dialled

        target = self.target(manifest)
        if self.budget is None or target is None:
            return
        shared = set(self.open(manifest))
        entries = [self._entry(spec) for spec in manifest.specs if spec.is_float]
        kept = [entry.codec for entry in entries if entry.name not in shared]
        guesses = [entry.codec for entry in entries if entry.name in shared]
        later = [self.budget.settings] if needs_points(self) else []
        for others in (guesses, *later):
            Dialled(tuple(preset(text) for text in dict.fromkeys((*kept, *others))), target)

    def fixed(self, manifest: Manifest) -> dict[str, str]:
        """Return the codec texts of all floating-point tensors that the budget leaves alone."""
        shared = set(self.open(manifest))
        return {
            spec.name: self._entry(spec).codec
            for spec in manifest.specs
            if spec.is_float and spec.name not in shared
        }

    def open(self, manifest: Manifest) -> tuple[str, ...]:
        """Return the names of the tensors that share the budget, in manifest order."""
        if self.budget is None:
            return ()
        return tuple(
            spec.name for spec in manifest.specs if spec.is_float and self._own(spec) is None
        )

    def tensor_weights(self, manifest: Manifest) -> dict[str, float]:
        """Return how much the squared error of each floating-point tensor counts, by its name."""
        return {spec.name: self._weight(spec.name) for spec in manifest.specs if spec.is_float}

    def target(self, manifest: Manifest, rate: float | None = None) -> int | None:
        """Return the bytes that a whole message may have; None: the policy says nothing of them.

        Args:
            manifest: the model.
            rate: bits a second that a client has measured, for a deadline; None: the policy's own.

        Raises:
            ConfigError: ``rate`` is not positive and finite.
        """
        if self.budget is not None:
            return self.budget.target(manifest, rate)
        return None if self.base is None else self.base.target_bytes

    def resolve(self, manifest: Manifest) -> RatePlan:
        """Return the plan for a model, before anything was measured.

        Tensors that share a budget get the first guess; ``target_bytes`` of the plan is the target.

        Raises:
            ConfigError: as ``check``.
        """
        self.check(manifest)
        entries = tuple(self._entry(spec) for spec in manifest.specs)
        if self.budget is None:
            base = self.base or RatePlan((), "")
            return replace(base, entries=entries, manifest=manifest.digest.hex())
        return RatePlan(
            entries,
            manifest.digest.hex(),
            self.target(manifest),
            self.budget.settings,
            self.budget.allocator,
        )

    def plan(self, manifest: Manifest) -> Plan:
        """Return the codecs of a model.

        Raises:
            ConfigError: as ``check``.
        """
        from flowerpress.compression.rates.allocated import allocated

        return allocated(self, manifest)

    def _rule(self, spec: TensorSpec) -> Rule | None:
        return next((rule for rule in self.rules if matches(rule.match, spec.name)), None)

    def _own(self, spec: TensorSpec) -> Entry | None:
        """Return what a rule or ``vectors`` says of a tensor."""
        if rule := self._rule(spec):
            return rule.entry(spec)
        if self.vectors is not None and len(spec.shape) < 2:
            return Entry(spec.name, self.vectors if spec.is_float else EXACT, kept=True)
        return None

    def _entry(self, spec: TensorSpec) -> Entry:
        if own := self._own(spec):
            return own
        if self.base is not None:
            if spec.name not in self._based:
                raise UnknownNameError("tensor of the plan", spec.name, self._based)
            return self._based[spec.name]
        if not spec.is_float:
            return Entry(spec.name, EXACT)
        weight = self._weight(spec.name) if self.weights else None
        text = self._guess
        if weight not in (None, 1.0) and text == _DEFAULT:
            text = f"{_DEFAULT}(weight={weight!r})"
        return Entry(spec.name, text, sensitivity=weight)

    def _weight(self, name: str) -> float:
        return next((weight for pattern, weight in self.weights if matches(pattern, name)), 1.0)
