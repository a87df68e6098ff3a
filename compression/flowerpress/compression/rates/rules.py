"""The rules of a policy: a pattern over names, a codec, blocks of rows. The first match counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flowerpress.compression.errors import ConfigError
from flowerpress.compression.grouped import MOST_GROUPS
from flowerpress.compression.presets import preset
from flowerpress.compression.rates.patterns import (
    check_pattern,
    matching,
    names_at_hand,
    unmatched,
)
from flowerpress.compression.rates.plan import Entry
from flowerpress.compression.rates.reading import setting, whole
from flowerpress.compression.spec import Manifest, TensorSpec

__all__ = ["EXACT", "Rule", "first_matches"]

EXACT = "none"
"""What a plan says of tensors of integers."""


@dataclass(frozen=True)
class Rule:
    """Tensors whose names match get this codec; with ``groups``, each of so many blocks of rows.

    Raises:
        ConfigError: no pattern, no codec, or groups out of range.
    """

    match: str
    codec: str
    groups: int = 1

    def __post_init__(self) -> None:
        check_pattern(self.match)
        setting(self.codec, "codec")
        whole(self.groups, "groups", 1, MOST_GROUPS, "blocks")

    def entry(self, spec: TensorSpec) -> Entry:
        """Return what a plan says of a tensor that this rule decides about."""
        if not spec.is_float:
            return Entry(spec.name, EXACT)
        groups = (self.codec,) * self.groups if self.groups > 1 else ()
        return Entry(spec.name, self.codec, groups, kept=True)

    def check(self, at: str, own: Sequence[TensorSpec]) -> None:
        """Refuse the tensors ``own`` that this rule decides about; ``at`` begins the messages.

        Raises:
            ConfigError: more blocks than rows, or a lossy codec for tensors of integers only.
        """
        matrix = Manifest((TensorSpec("any", (64, 64)),))
        if not any(spec.is_float for spec in own) and not preset(self.codec).plan(matrix).lossless:
            names = names_at_hand([spec.name for spec in own], self.match)
            raise ConfigError(
                f"{at}.match: {self.match!r} matches tensors of integers only ({names}), which "
                f"are always sent exactly and never with {self.codec}; leave the rule out"
            )
        for spec in own:
            rows = spec.shape[0] if spec.shape else 1
            if 1 < self.groups > rows and spec.is_float:
                raise ConfigError(
                    f"{at}.groups is {self.groups}, and {spec.name} has {rows} rows (its shape is "
                    f"{list(spec.shape)}); ask for at most {max(rows, 1)}, or narrow the pattern"
                )


def first_matches(
    patterns: Sequence[tuple[str, str]], names: Sequence[str]
) -> list[tuple[str, ...]]:
    """Return the names that each pattern matches and no earlier one; no list is empty.

    Args:
        patterns: where each stands, for messages, and the pattern itself.
        names: of tensors.

    Raises:
        ConfigError: a pattern that matches nothing, or nothing that is left.
    """
    taken: dict[str, str] = {}
    found = []
    for at, pattern in patterns:
        matched = matching(pattern, names)
        if not matched:
            raise unmatched(at, pattern, names)
        left = tuple(name for name in matched if name not in taken)
        if not left:
            raise ConfigError(
                f"{at}: {pattern!r} matches only what {taken[matched[0]]!r} has matched before, "
                "and the first match counts; put it in front of that one, or leave it out"
            )
        taken |= dict.fromkeys(left, pattern)
        found.append(left)
    return found
