"""Patterns over tensor names: a glob over the whole name, or ``re:`` and a regular expression.

A glob knows ``*``, ``?``, ``[abc]`` and ``[!abc]``, sees no difference between dots and other
characters, and tells upper from lower case. A name written out matches itself, brackets and all.
Python matches regular expressions by backtracking, and some take longer than anybody waits. What
an expression can cost is therefore estimated before it is used, and the expensive are refused.
"""

from __future__ import annotations

import difflib
import fnmatch
import math
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

from flowerpress.compression.errors import ConfigError

__all__ = ["LONGEST_PATTERN", "check_pattern", "matches", "matching", "names_at_hand", "unmatched"]

LONGEST_PATTERN = 256
"""Characters of a pattern, ``re:`` included."""

_REGEX = "re:"
_NAMES_SHOWN = 20
_NAMES_COMPARED = 1000
_LONGEST_SHOWN = 80

_MOST_STEPS = 1e8
_PLACES = 100.0  # where a repetition may end: about as many as a name has characters
_REPETITION = re.compile(r"(?:[*+?]|\{(?:\d*,\d*|\d+)\})[?+]?")
_FLAGS = re.compile(r"\?[a-zA-Z]*-?[a-zA-Z]*[:)]|\?#")
_CLASS = re.compile(r"\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)


def check_pattern(pattern: str) -> None:
    """Refuse what is no pattern.

    Raises:
        ConfigError: it is empty or too long, no regular expression, or one that can take forever.
    """
    _compiled(pattern)


def matches(pattern: str, name: str) -> bool:
    """Tell whether the whole of ``name`` matches.

    Raises:
        ConfigError: as ``check_pattern``.
    """
    compiled = _compiled(pattern)
    return pattern == name or compiled.fullmatch(name) is not None


def matching(pattern: str, names: Iterable[str]) -> tuple[str, ...]:
    """Return the ``names`` that match, in their order.

    Raises:
        ConfigError: as ``check_pattern``.
    """
    return tuple(name for name in names if matches(pattern, name))


def unmatched(where: str, pattern: str, names: Sequence[str]) -> ConfigError:
    """Return the error for a pattern that matches none of ``names``, which it lists."""
    return ConfigError(
        f"{where}: {pattern!r} matches no tensor of the model; "
        f"it has {names_at_hand(names, pattern)}"
    )


def names_at_hand(names: Sequence[str], wanted: str) -> str:
    """Return ``names`` for a message, those nearest to ``wanted`` first, and not too many."""
    if not names:
        return "none"
    plain = re.sub(r"[*?\[\]\\()+^$|]|\{.*?\}", "", wanted.removeprefix(_REGEX))
    compare = difflib.SequenceMatcher(a="", b=plain.lower(), autojunk=False)

    def likeness(name: str) -> float:
        compare.set_seq1(name[:LONGEST_PATTERN].lower())
        return compare.ratio()

    near = sorted(names[:_NAMES_COMPARED], key=likeness, reverse=True)[:_NAMES_SHOWN]
    more = len(names) - len(near)
    shown = [n if len(n) <= _LONGEST_SHOWN else f"{n[:_LONGEST_SHOWN]}..." for n in near]
    return ", ".join(shown) + (f" and {more} more" if more else "")


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> re.Pattern[str]:
    if len(pattern) > LONGEST_PATTERN:
        raise ConfigError(
            f"pattern {pattern[:40]!r}... has {len(pattern)} characters, "
            f"at most {LONGEST_PATTERN} are allowed; use * for what varies"
        )
    regex = pattern.startswith(_REGEX)
    inner = pattern.removeprefix(_REGEX)
    if not inner.strip():
        raise ConfigError(f"pattern {pattern!r} is empty; write * for every tensor")
    if regex:
        _check_cost(inner)
    try:
        return re.compile(inner if regex else fnmatch.translate(inner))
    except (re.error, OverflowError, RecursionError) as error:
        kind = "regular expression" if regex else "pattern"
        raise ConfigError(f"{pattern!r} is not a valid {kind}: {error}") from None


def _check_cost(regex: str) -> None:
    """Refuse an expression that may try more than ``_MOST_STEPS`` ways to match one name.

    Every repetition multiplies what there is to try by about the length of a name, every choice by
    the number of its alternatives. Repeated inside a repetition, either is exponential.
    """
    steps = 1.0
    # For each open group: the product of what is in it, and its alternatives.
    open_groups: list[list[float]] = [[1.0, 1.0]]
    at = 0
    while at < len(regex):
        sign, width, branches = regex[at], 1, 1.0
        if sign == "\\":
            width = 2
        elif sign == "[" and (found := _CLASS.match(regex, at)):
            width = len(found[0])
        elif sign == "(":
            if (flags := _FLAGS.match(regex, at + 1)) and ("x" in flags[0] or "#" in flags[0]):
                raise ConfigError(
                    f"regular expression {regex!r} has comments or the flag x; write it without"
                )
            open_groups.append([1.0, 1.0])
            # What follows an opening parenthesis is no repetition, though it may look like one.
            at += 2 if regex[at + 1 : at + 2] == "?" else 1
            continue
        elif sign == "|":
            open_groups[-1][1] += 1
        elif sign == ")" and len(open_groups) > 1:
            product, alternatives = open_groups.pop()
            branches = product * alternatives
        at += width
        repeated = None if sign in "(|" else _REPETITION.match(regex, at)
        if repeated:
            at += len(repeated[0])
            least, most = _bounds(repeated[0])
            if branches > 1 and most > 1:
                raise ConfigError(
                    f"regular expression {regex!r} repeats a group that itself repeats or chooses, "
                    "which can take forever; repeat single characters, such as [a-z.]*, "
                    "or write a glob"
                )
            branches *= min(most - least + 1, _PLACES)
        open_groups[-1][0] *= branches
    for product, alternatives in open_groups:
        steps *= product * alternatives
    if steps > _MOST_STEPS:
        raise ConfigError(
            f"regular expression {regex!r} can take too long: it has too many repetitions and "
            "alternatives; write a glob, or several rules"
        )


def _bounds(repetition: str) -> tuple[float, float]:
    """Return how often ``repetition`` repeats, at least and at most."""
    if repetition[0] != "{":
        return float(repetition[0] == "+"), 1.0 if repetition[0] == "?" else math.inf
    least, comma, most = repetition[1:].partition("}")[0].partition(",")
    low = float(least or 0)
    return low, (float(most) if most else math.inf) if comma else low
