"""Policies and plans that nobody should have written: ``python -m tests.hostile.odd_policies``.

    python -m tests.hostile.odd_policies --count 100000 --seed 1   # another seed, other files

Good files with keys renamed, values replaced, parts repeated, left out or nested, and their text
damaged. Each must be refused with a ``ConfigError`` that says where and why in a few lines, or be
written and read back to the same and give a codec to every tensor. The first that does neither ends
the command with what is needed to see it again.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from flowerpress.compression import ConfigError, Manifest, TensorSpec
from flowerpress.compression.rates.plan import RatePlan
from flowerpress.compression.rates.policy import Policy

__all__ = ["MODEL", "OTHER", "Odd", "attempt", "good_plan", "odd_plans", "odd_policies"]

SLOWEST = 5.0
LONGEST_MESSAGE = 2500

MODEL = Manifest(
    (
        TensorSpec("conv1.weight", (8, 1, 3, 3)),
        TensorSpec("conv1.bias", (8,)),
        TensorSpec("norm.count", (), "int64"),
        TensorSpec("fc1.weight", (16, 40)),
        TensorSpec("fc1.bias", (16,)),
        TensorSpec("scale", ()),
        TensorSpec("näme with ☃", (3, 2)),
    )
)
OTHER = Manifest((TensorSpec("conv1.weight", (8, 1, 3, 3)), TensorSpec("head.weight", (10, 16))))

_CODE = "__import__('os').system('true')"
# As they stand in TOML; some are as good as what they replace.
_TOML = (
    *("true", "false", "0", "-1", "1", "2", "4096", "-0.0", "0.5", "1.5", "64000.0", "1e-320"),
    *("nan", "-nan", "inf", "-inf", "1e400", "9" * 30, "9" * 5000, "0x" + "f" * 1000, "1__0"),
    *("''", "' '", "'é☃'", '"\\u202e"', '"\\u0000"', '"\\ud800"', "'''\n'''", f'"{_CODE}"'),
    *("'plan.json'", "'odd.toml'", "'../../x'", "'/dev/zero'", f"'{'x' * 100_000}'"),
    *("[]", "[[]]", "{}", "{a = 1}", "[1, 'x']", "['rd', 'rd']", "['int8', 'nf4']", "[nan]"),
    *("1979-05-27T07:32:00Z", "1979-05-27", "07:32:00", "[" * 200 + "]" * 200),
    *("'stc'", "'rd'", "'int8'", "'none'", "'*'", "'fc1.*'", "'conv*'", "'n*'", "'scale'"),
    *("'re:('", "'re:(a+)+b'", "'re:.*'", "'re:\\d{99999}'", f"'{'*' * 256}'", f"'{'(' * 300}'"),
    *("'stc(density=nan)'", "'stc(density=-1)'", "'topk(density=1e-9)'", "'rd(target_bytes=1)'"),
    *("'rd(weight=0)'", "'lambda'", "'dp'", "'norm'", "'squared'", "'uniform'", "'phase'"),
    *("'topk(density=0.1'", "'topk(density=0.1))'", "'topk(density=0.1,density=0.2)'", "'rd(())'"),
    *("'topk(scope=global)'", "'formats'", "'rd(step=1e30)'", "'powersgd(rank=99999999999)'"),
)
_JSON: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 300, 4096, 1 << 62, 10**400, -0.0, 0.5, 1e308),
    *(float("nan"), float("inf"), -float("inf"), "", " ", "é☃", "\0", "\ud800", "\u202e", _CODE),
    *("policy.toml", "plan.json", "../../x", "x" * 100_000, [], [[]], {}, {"a": 1}, ["rd"] * 300),
    *("rd", "stc", "int8", "none", "stc(density=nan)", "topk(density=1e-9)", "rd(target_bytes=1)"),
    *(
        "powersgd(rank=99999999999)",
        "rd(step=1e30)",
        ["int8", "nf4"],
        ["rd", 3],
        "0" * 16,
        "g" * 16,
    ),
    *("fc1.weight", "conv1.weight", "flowerpress.plan/2", "topk(scope=global)", "rd(weight=0)"),
)
_KEYS = (
    *("default", "vectors", "plan", "tensor", "budget", "weights", "schedule", "match", "codec"),
    *("groups", "target_bytes", "target_ratio", "max_nmse", "deadline", "rate", "allocator"),
    *(
        "error",
        "menu",
        "every",
        "split",
        "kind",
        "early",
        "warmup",
        "accordion",
        "name",
        "bytes",
        "format",
    ),
    *("manifest", "tensors", "sensitivity", "defualt", "__class__", "é", "a.b", "", "x" * 5000),
)

_CODECS = ("rd", "stc", "int8", "none", "fp16", "topk(density=0.1)", "rd(relative=2,scope=tensor)")
# What may well stand for a key, so that what is odd is seen beside what is not.
_SUITED: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("default", "vectors", "codec"), _CODECS),
    "match": ("*", "conv*", "fc1.*", "re:.*weight", "scale", "n*", "*.bias", "näme*"),
    "groups": (1, 2, 3, ["int8", "nf4"], ["rd(relative=3)"] * 3),
    "target_bytes": (200, 500, 4096, 1 << 30),
    "target_ratio": (1.1, 10, 1e6),
    "max_nmse": (1e-9, 0.1, 1),
    "deadline": (0.1, 10, 1000.0),
    "rate": (8000, 64000.0, 1e9),
    "allocator": ("lambda", "dp", "uniform", "by-size"),
    "error": ("squared", "norm", 0.1),
    "menu": ("rd", "formats", "topk", ["int8", "nf4"], ["stc"], []),
    "every": (0, 1, 7),
    "split": (0, 1, 100, 1 << 30),
    "kind": ("constant", "phase", "cubic"),
    "name": ("conv1.bias", "fc1.bias", "head.bias"),
    "manifest": (MODEL.digest.hex(), OTHER.digest.hex()),
    "bytes": (0, 1, 99.5),
}

_POLICIES = (
    "",
    "default = 'stc'\nvectors = 'fp16'\n",
    "[[tensor]]\nmatch = 'conv*'\ncodec = 'int8'\ngroups = 2\n[[tensor]]\nmatch = 're:fc1\\..*'\n"
    "codec = 'stc(density=0.05)'\n",
    "vectors = 'fp16'\n[budget]\ntarget_bytes = 4096\nallocator = 'lambda'\nmenu = 'rd'\n"
    "every = 5\n[weights]\n'fc1.*' = 4.0\n",
    "[budget]\ntarget_ratio = 10\nallocator = 'dp'\nerror = 'norm'\nmenu = ['int8', 'nf4']\n",
    "[budget]\ndeadline = 10.0\nrate = 64000\n[schedule]\nkind = 'phase'\nearly = 1.5\n",
    "[budget]\nmax_nmse = 0.1\n[schedule]\nkind = 'cubic'\nstart = 4.0\nwarmup = 3\n",
)


@dataclass(frozen=True)
class Odd:
    """A file of the kind ``policy`` or ``plan``."""

    kind: str
    text: str


def odd_policies(seed: int) -> Iterator[Odd]:
    """Yield policies without end, the same for the same seed."""
    rng = random.Random(f"policies {seed}")
    while True:
        lines = rng.choice(_POLICIES).splitlines(keepends=True)
        for _ in range(rng.randint(1, 3)):
            _change_line(lines, rng)
        text = "".join(lines)
        yield Odd("policy", _damaged(text, rng) if rng.random() < 0.2 else text)


def odd_plans(seed: int) -> Iterator[Odd]:
    """Yield plans without end, the same for the same seed."""
    rng = random.Random(f"plans {seed}")
    good = [json.loads(good_plan(model).to_json()) for model in (MODEL, MODEL, OTHER)]
    while True:
        document = copy.deepcopy(rng.choice(good))
        for _ in range(rng.randint(1, 3)):
            _change(document, rng)
        text = json.dumps(document, ensure_ascii=rng.random() < 0.5)
        if rng.random() < 0.1:
            text = text.replace('"codec"', f'"codec": "rd", "{rng.choice(_KEYS)}"', 1)
        yield Odd("plan", _damaged(text, rng) if rng.random() < 0.2 else text)


def good_plan(manifest: Manifest) -> RatePlan:
    """Return a plan with blocks, a budget and a menu."""
    names = [spec.name for spec in manifest.specs]
    policy = (
        f"[[tensor]]\nmatch = '{names[0]}'\ncodec = 'int8'\ngroups = 2\n"
        "[budget]\ntarget_bytes = 4096\nmenu = ['stc(density=0.05)', 'int8']\n"
    )
    return Policy.from_toml(policy).resolve(manifest)


def attempt(odd: Odd, manifest: Manifest = MODEL) -> Policy | RatePlan | str:
    """Return what a file says of a model, or the message with which it is refused.

    Raises:
        AssertionError: a message without a place, or longer than anybody reads; something that is
            not the same when it was written and read back; a tensor without codec; too long a time.
    """
    start = time.monotonic()
    where = f"odd.{'toml' if odd.kind == 'policy' else 'json'}"
    try:
        found = _policy(odd.text, where) if odd.kind == "policy" else _plan(odd.text, where)
        assert len(found.plan(manifest).codecs) == len(manifest)
    except ConfigError as error:
        said = str(error)
        assert len(said) <= LONGEST_MESSAGE, f"{len(said)} characters: {said[:200]}"
        assert said.isprintable(), ascii(said)
        said.encode()
        return said
    finally:
        assert time.monotonic() - start < SLOWEST
    return found


def _policy(text: str, where: str) -> Policy:
    policy = Policy.from_toml(text, where)
    assert Policy.from_toml(policy.to_toml()) == policy
    return policy


def _plan(text: str, where: str) -> RatePlan:
    plan = RatePlan.from_json(text, where)
    assert RatePlan.from_json(plan.to_json()) == plan
    return plan


def _change_line(lines: list[str], rng: random.Random) -> None:
    at = rng.randrange(len(lines) + 1)
    key, equals, value = lines[at].partition(" = ") if at < len(lines) else ("", "", "")
    match rng.randrange(9):
        case 0 | 1 if equals:
            lines[at] = f"{key} = {rng.choice(_TOML)}\n"
        case 2 | 3 if equals and key in _SUITED:
            lines[at] = f"{key} = {json.dumps(rng.choice(_SUITED[key]), ensure_ascii=False)}\n"
        case 4 if equals:
            lines[at] = f"{_key(rng)} = {value}"
        case 5:
            del lines[at : at + rng.randint(1, 3)]
        case 6 if at < len(lines):
            lines.insert(rng.randrange(len(lines) + 1), lines[at])
        case 7:
            table = rng.choice(("[{}]", "[[{}]]", "[budget.{}]", "[{}.a.b]", "[[tensor.{}]]"))
            lines.insert(at, table.format(_key(rng)) + "\n")
        case _:
            lines.insert(at, f"{_key(rng)} = {rng.choice(_TOML)}\n")


def _key(rng: random.Random) -> str:
    key = rng.choice(_KEYS)
    return key if key.isascii() and key.isidentifier() else json.dumps(key)


def _change(document: Any, rng: random.Random) -> None:
    """Change one thing somewhere in a JSON value, in place."""
    inner = [each for each in _containers(document) if each]
    at = rng.choice(inner) if inner and rng.random() < 0.9 else document
    if isinstance(at, list):
        index = rng.randrange(len(at)) if at else 0
        match rng.randrange(4):
            case 0:
                del at[index : index + 1]
            case 1:
                at.extend(copy.deepcopy(at[index : index + 1]))
            case 2:
                rng.shuffle(at)
            case _:
                at[index : index + 1] = [copy.deepcopy(rng.choice(_JSON))]
        return
    key = rng.choice(list(at)) if at else ""
    match rng.randrange(7):
        case 0:
            at.pop(key, None)
        case 1:
            at[rng.choice(_KEYS)] = at.pop(key, None)
        case 2:
            at[rng.choice(_KEYS)] = copy.deepcopy(rng.choice(_JSON))
        case 3:
            at[key] = copy.deepcopy(rng.choice(_JSON))
        case _:
            at[key] = copy.deepcopy(rng.choice(_SUITED.get(key, _JSON)))


def _containers(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        yield value
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _containers(inner)


def _damaged(text: str, rng: random.Random) -> str:
    at, width = rng.randrange(len(text) + 1), rng.randint(0, 30)
    other = rng.choice(
        ("", "\0", "é", "☃", "\n", '"', "'", "[", "{", "}", "]", "\\", "=", "#", "\ud800")
    )
    return text[:at] + other * rng.randint(1, 3) + text[at + width :]


def main() -> None:
    """Attack until ``--count`` files of each kind went well, or one did not."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    ended: Counter[str] = Counter()
    kinds: tuple[Callable[[int], Iterator[Odd]], ...] = (odd_policies, odd_plans)
    for kind in kinds:
        for number, odd in zip(range(asked.count), kind(asked.seed), strict=False):
            try:
                refused = isinstance(attempt(odd), str)
            except BaseException as error:
                print(f"{odd.kind} {number} of seed {asked.seed}: {error!r}\n{odd.text[:3000]}")
                raise
            ended[f"{odd.kind} {'refused' if refused else 'used'}"] += 1
    print(*(f"{what}: {count}" for what, count in sorted(ended.items())), file=sys.stdout)


if __name__ == "__main__":
    main()
