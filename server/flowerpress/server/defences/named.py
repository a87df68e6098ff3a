"""Defences as a person writes them: ``clip``, ``examples(times=3)+clip``, ``clip+trimmed``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from flowerpress.compression import ConfigError
from flowerpress.compression.spelling import build
from flowerpress.server.defences.clipping import Clip
from flowerpress.server.defences.examples import Examples
from flowerpress.server.defences.robust import Median, Trimmed

__all__ = ["DEFENCES", "Defence", "read_defence"]

DEFENCES: dict[str, type[Clip | Examples | Median | Trimmed]] = {
    "clip": Clip,
    "examples": Examples,
    "median": Median,
    "trimmed": Trimmed,
}

# Between parts, and not the one in 1e+6.
_PLUS = re.compile(r"\+(?![^(]*\))")


@dataclass(frozen=True)
class Defence:
    """What stands between decoded updates and the model: each part is optional.

    Attributes:
        examples: caps what a client weighs.
        clip: bounds how long its change is.
        centre: replaces the weighted mean by a trimmed mean or a median.
    """

    examples: Examples | None = None
    clip: Clip | None = None
    centre: Trimmed | Median | None = None

    def __post_init__(self) -> None:
        if self.examples and self.centre:
            raise ConfigError(
                "trimmed means and medians count every client alike, so that examples has nothing "
                "to cap: leave it out"
            )
        if not (self.examples or self.clip or self.centre):
            raise ConfigError("a defence without any part defends nothing; leave it out")


def read_defence(text: str) -> Defence:
    """Return the defence that ``text`` spells.

    Raises:
        UnknownNameError: no such defence or parameter.
        ConfigError: a value that is not allowed, or parts that do not go together.
    """
    parts = [build("defence", part, DEFENCES) for part in _PLUS.split(text)]
    found: dict[str, Clip | Examples | Median | Trimmed] = {}
    for part in parts:
        role = _role(part)
        if role in found:
            raise ConfigError(
                f"defence {text!r} has two parts that do the same; one of each kind: "
                "examples, clip, and trimmed or median"
            )
        found[role] = part
    return Defence(**found)  # type: ignore[arg-type]


def _role(part: Clip | Examples | Median | Trimmed) -> str:
    if isinstance(part, Clip):
        return "clip"
    return "examples" if isinstance(part, Examples) else "centre"
