"""Policies as files: TOML that a person wrote, checked key by key, and written back."""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

from flowerpress.compression.errors import ConfigError
from flowerpress.compression.grouped import MOST_GROUPS
from flowerpress.compression.rates.budget import BudgetSpec
from flowerpress.compression.rates.patterns import check_pattern
from flowerpress.compression.rates.plan import RatePlan
from flowerpress.compression.rates.policy import MOST_RULES, WEIGHTS, Policy
from flowerpress.compression.rates.reading import (
    check_document,
    number,
    read_text,
    setting,
    shown,
    table,
    text,
    whole,
)
from flowerpress.compression.rates.rules import Rule
from flowerpress.compression.rates.schedule import Schedule

__all__ = ["LARGEST", "dumps", "loads", "read"]

LARGEST = 1 << 20
"""Bytes of a policy file."""

_MOST_DOTS = 5_000_000
_KEYS = ("default", "vectors", "plan", "tensor", "budget", "weights", "schedule")
_RULE_KEYS = ("match", "codec", "groups")


def read(path: Path) -> Policy:
    """Return the policy in a file.

    Raises:
        ConfigError: it cannot be read, or holds no policy.
    """
    return loads(read_text(path, "policy", LARGEST), str(path), path.parent)


def loads(content: str, where: str, folder: Path | None) -> Policy:
    """Return the policy that TOML says; see ``Policy.from_toml``.

    Raises:
        UnknownNameError: a key, codec, menu or the like that does not exist.
        ConfigError: not TOML, or a value that is not allowed.
    """
    document = table(_parsed(content, where), where, _KEYS)
    values: dict[str, Any] = {"where": where}
    values |= {
        name: setting(document[name], f"{where}: {name}")
        for name in ("default", "vectors")
        if name in document
    }
    if "plan" in document:
        values["base"] = _plan(document["plan"], f"{where}: plan", folder)
    if "tensor" in document:
        values["rules"] = _rules(document["tensor"], f"{where}: tensor")
    if "budget" in document:
        values["budget"] = BudgetSpec.parse(document["budget"], f"{where}: budget")
    if "weights" in document:
        values["weights"] = _weights(document["weights"], f"{where}: weights")
    if "schedule" in document:
        values["schedule"] = Schedule.parse(document["schedule"], f"{where}: schedule")
    try:
        return Policy(**values)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def dumps(policy: Policy, plan: str | None) -> str:
    """Return the TOML of a policy; see ``Policy.to_toml``.

    Raises:
        ConfigError: it starts from a plan, and there is no path for that.
    """
    if policy.base is not None and plan is None:
        raise ConfigError("the policy starts from a plan: save that, and give its path")
    top = {"default": policy.default, "vectors": policy.vectors}
    lines = [f"{key} = {_toml(value)}" for key, value in top.items() if value is not None]
    if policy.base is not None:
        lines.append(f"plan = {_toml(plan)}")
    for rule in policy.rules:
        lines += ["", "[[tensor]]", f"match = {_toml(rule.match)}", f"codec = {_toml(rule.codec)}"]
        lines += [f"groups = {rule.groups}"] if rule.groups > 1 else []
    for name, given in (("budget", policy.budget), ("schedule", policy.schedule)):
        if given is not None:
            pairs = [(f.name, getattr(given, f.name), f.default) for f in fields(given)]
            lines += ["", f"[{name}]"]
            lines += [
                f"{key} = {_toml(value)}" for key, value, default in pairs if value != default
            ]
    if policy.weights:
        lines += ["", "[weights]"]
        lines += [f"{_toml(pattern)} = {_toml(weight)}" for pattern, weight in policy.weights]
    return "\n".join(lines) + "\n"


def _parsed(content: str, where: str) -> dict[str, Any]:
    if len(content) > LARGEST:
        raise ConfigError(f"{where} has more than {LARGEST} characters, which no policy needs")
    # The parser takes the square of a key's dots in time, and of nothing else.
    if sum(line.count(".") ** 2 for line in re.split(r"[\r\n]", content)) > _MOST_DOTS:
        raise ConfigError(f"{where} has lines with thousands of dots, which no policy needs")
    try:
        document = tomllib.loads(content)
    except RecursionError:
        raise ConfigError(f"{where}: nested deeper than any policy") from None
    except ValueError as error:
        raise ConfigError(f"{where} is not valid TOML: {str(error)[:200]}") from None
    check_document(document, where)
    return document


def _plan(value: object, at: str, folder: Path | None) -> RatePlan:
    written = text(value, at)
    if folder is None:
        raise ConfigError(f"{at} is {shown(written)}; only a policy in a file can name another")
    try:
        return RatePlan.read(folder / written)
    except ConfigError as error:
        raise ConfigError(f"{at}: {error}") from None


def _rules(value: object, at: str) -> tuple[Rule, ...]:
    if not isinstance(value, list):
        raise ConfigError(f"{at} is {shown(value)}; write each rule under a line [[tensor]]")
    if len(value) > MOST_RULES:
        raise ConfigError(f"{at}: {len(value)} rules; at most {MOST_RULES} are possible")
    return tuple(_one_rule(one, f"{at}[{i}]") for i, one in enumerate(value))


def _one_rule(value: object, at: str) -> Rule:
    given = table(value, at, _RULE_KEYS)
    for key in ("match", "codec"):
        if key not in given:
            raise ConfigError(f"{at} has no {key}; a rule needs match = ... and codec = ...")
    pattern = _pattern(given["match"], f"{at}.match")
    codec = setting(given["codec"], f"{at}.codec")
    return Rule(
        pattern, codec, whole(given.get("groups", 1), f"{at}.groups", 1, MOST_GROUPS, "blocks")
    )


def _weights(value: object, at: str) -> tuple[tuple[str, float], ...]:
    if not isinstance(value, dict):
        raise ConfigError(f'{at} is {shown(value)}; it must be a table such as "fc2.*" = 4.0')
    return tuple(_weight(pattern, weight, at) for pattern, weight in value.items())


def _weight(pattern: str, weight: object, at: str) -> tuple[str, float]:
    if isinstance(weight, dict):
        raise ConfigError(
            f'{at}: {shown(pattern)} is a table; put names with dots into quotes, "fc2.*"'
        )
    _pattern(pattern, at)
    return pattern, number(weight, f"{at}: {shown(pattern)}", *WEIGHTS)


def _pattern(value: object, at: str) -> str:
    pattern = text(value, at)
    try:
        check_pattern(pattern)
    except ConfigError as error:
        raise ConfigError(f"{at}: {error}") from None
    return pattern


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return repr(value)
