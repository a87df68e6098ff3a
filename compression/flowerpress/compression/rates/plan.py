"""A plan: one codec for each tensor of one model, as an allocator or a person settled it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from flowerpress.compression.codec import Codec
from flowerpress.compression.errors import ConfigError, UnknownNameError
from flowerpress.compression.grouped import MOST_GROUPS
from flowerpress.compression.plan import Joint, Plan, Together
from flowerpress.compression.presets import Preset, preset
from flowerpress.compression.rates.alike import alike_plan
from flowerpress.compression.rates.allocated import Allocated
from flowerpress.compression.rates.blocks import blocked, in_blocks
from flowerpress.compression.rates.dial import Dialled, is_dialled
from flowerpress.compression.spec import Manifest, TensorSpec

__all__ = ["Entry", "RatePlan"]

_PROBE = TensorSpec("probe", (2, 2))


@dataclass(frozen=True)
class Entry:
    """One tensor of a plan.

    Attributes:
        name: of the tensor.
        codec: as a person writes it, such as ``topk(density=0.01)``.
        groups: codecs of equal blocks of rows (axis 0) in place of ``codec``; empty: one codec.
        bytes: what an allocator expects the body to take, in bytes.
        error: what it expects of the squared error, as a fraction of the tensor's energy (NMSE).
        sensitivity: how much it let the squared error of this tensor count.
        kept: whether a budget leaves the codec as it is, step or density included.
    """

    name: str
    codec: str
    groups: tuple[str, ...] = ()
    bytes: float | None = None
    error: float | None = None
    sensitivity: float | None = None
    kept: bool = False


@dataclass(frozen=True)
class RatePlan(Preset):
    """One codec for each tensor of a manifest, and what all of them together may take.

    It is used wherever a preset is, needs no data, and fits no other model. With ``target_bytes``
    the encoder multiplies the steps and divides the densities of all entries by one factor, found
    anew for each update, so that the message has at most so many bytes and hardly fewer: the plan
    says how tensors stand to each other, the update decides about the level.

    Attributes:
        entries: of every tensor, in manifest order.
        manifest: ``Manifest.digest`` of the model, in hexadecimal digits.
        target_bytes: of a whole message.
        menu: the codecs that an allocator chose from; where nothing can be scaled and an update
            gets too long, the encoder chooses from it anew.
        allocator: which one it was; empty if a person wrote the plan.

    Raises:
        ConfigError: an unknown codec, a parameter out of range, a tensor named twice, or a budget
            that is not positive.
    """

    entries: tuple[Entry, ...]
    manifest: str
    target_bytes: int | None = None
    menu: tuple[str, ...] = ()
    allocator: str = ""

    def __post_init__(self) -> None:
        if len({entry.name for entry in self.entries}) != len(self.entries):
            raise ConfigError("a plan names a tensor twice")
        if self.target_bytes is not None and self.target_bytes < 1:
            raise ConfigError(f"target_bytes is {self.target_bytes}; it must be at least 1")
        for entry in self.entries:
            if len(entry.groups) > MOST_GROUPS:
                raise ConfigError(
                    f"{entry.name}: {len(entry.groups)} groups; at most {MOST_GROUPS} are possible"
                )
        self._choices  # noqa: B018 - whatever codec text is wrong is refused now
        for text in self.menu:
            preset(text)
            if self.menu.count(text) > 1:
                raise ConfigError(f"{text!r} is twice in the menu")

    @cached_property
    def _choices(self) -> dict[str, Preset]:
        texts = dict.fromkeys(text for e in self.entries for text in (e.codec, *e.groups))
        return {text: preset(text) for text in texts}

    @property
    def uses_reference(self) -> bool:
        """Whether any tensor's codec gets shorter by the last global change."""
        return any(choice.uses_reference for choice in self._choices.values())

    @property
    def texts(self) -> dict[str, str]:
        """What each tensor is coded with, by name, for people."""
        return {e.name: " | ".join(e.groups) or e.codec for e in self.entries}

    def codec(self, spec: TensorSpec) -> Codec:
        """Return the codec of one tensor of the model.

        Raises:
            ConfigError: the plan has no such tensor.
        """
        return self._choices[self._entry(spec.name).codec].codec(spec)

    def check(self, manifest: Manifest) -> None:
        """Refuse another model.

        Raises:
            ConfigError: it has other tensors; they are named.
        """
        own, given = [e.name for e in self.entries], [spec.name for spec in manifest.specs]
        if manifest.digest.hex() == self.manifest and own == given:
            return
        if missing := [name for name in own if name not in set(given)]:
            why = f"the model has no {_some(missing)}"
        elif extra := [name for name in given if name not in set(own)]:
            why = f"the plan says nothing of {_some(extra)}"
        else:
            why = "its tensors have the same names and other shapes, types or another order"
        raise ConfigError(f"the plan is for another model: {why}; solve it again for this one")

    def plan(self, manifest: Manifest) -> Plan:
        """Return the codecs of the model.

        Raises:
            ConfigError: the plan is for another model, or asks for a lossy codec of integers.
        """
        self.check(manifest)
        counts = [max(1, len(entry.groups)) for entry in self.entries]
        cut = blocked(manifest, counts)
        texts = [text for entry in self.entries for text in entry.groups or (entry.codec,)]
        choices = tuple(self._choices[text] for text in texts)
        for spec, choice, text in zip(cut.specs, choices, texts, strict=True):
            if not (spec.is_float or choice.codec(_PROBE).lossless):
                raise ConfigError(
                    f"{spec.name}: {text} loses bits, and this is a tensor of {spec.dtype}; "
                    "say none or lossless"
                )
        inner = alike_plan(cut, choices)
        if self.target_bytes is not None:
            kept = [e.kept for e, n in zip(self.entries, counts, strict=True) for _ in range(n)]
            rule = self._rule(cut, choices, kept, counts)
            inner = replace(inner, together=(Together(rule, tuple(range(len(cut)))),))
        return in_blocks(inner, manifest, counts)

    def _rule(
        self,
        cut: Manifest,
        choices: tuple[Preset, ...],
        kept: Sequence[bool],
        counts: Sequence[int],
    ) -> Joint:
        assert self.target_bytes is not None
        scaled = [is_dialled(c) and not k for c, k in zip(choices, kept, strict=True)]
        if not self.menu or any(scaled):
            return Dialled(choices, self.target_bytes, tuple(counts), tuple(kept))
        own = zip(cut.specs, choices, kept, strict=True)
        return Allocated(
            self.menu,
            self.target_bytes,
            fixed=tuple((spec.name, choice) for spec, choice, k in own if k),
            first=choices,
            counts=tuple(counts),
        )

    def overridden(self, changes: Mapping[str, str]) -> RatePlan:
        """Return the plan with other codecs for some tensors (name -> codec text).

        Raises:
            ConfigError: no such tensor, or no such codec.
        """
        for name in changes:
            self._entry(name)
        entries = (
            Entry(e.name, changes[e.name], kept=True) if e.name in changes else e
            for e in self.entries
        )
        return replace(self, entries=tuple(entries))

    def to_json(self) -> str:
        """Return the plan as JSON that ``from_json`` reads back."""
        from flowerpress.compression.rates.plan_file import dumps

        return dumps(self)

    @classmethod
    def from_json(cls, text: str, where: str = "plan") -> RatePlan:
        """Read what ``to_json`` wrote, or a person; ``where`` is named in errors.

        Raises:
            ConfigError: not a plan; says where and why.
        """
        from flowerpress.compression.rates.plan_file import loads

        return loads(text, where)

    @classmethod
    def read(cls, path: Path | str) -> RatePlan:
        """Read a file.

        Raises:
            ConfigError: it cannot be read, or holds no plan.
        """
        from flowerpress.compression.rates.plan_file import read

        return read(Path(path))

    def save(self, path: Path | str) -> None:
        """Write a file, whole or not at all.

        Raises:
            ConfigError: it cannot be written.
        """
        from flowerpress.compression.rates.plan_file import save

        save(self, Path(path))

    def _entry(self, name: str) -> Entry:
        for entry in self.entries:
            if entry.name == name:
                return entry
        raise UnknownNameError("tensor of the plan", name, (e.name for e in self.entries))


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(map(repr, names[:3])) + more
