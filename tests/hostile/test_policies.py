"""Two thousand odd policies and plans: refused in words, or written, read back and used.

More of them, or others: ``python -m tests.hostile.odd_policies --count 100000 --seed 1``.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from flowerpress.compression import (
    ConfigError,
    Manifest,
    WireError,
    decode_frames,
    encode_frames,
)
from flowerpress.compression.plan import Coded
from flowerpress.compression.presets.base import RAW
from flowerpress.compression.rates.choice import choose
from flowerpress.compression.rates.message import message_bytes
from flowerpress.compression.rates.plan import RatePlan
from flowerpress.compression.rates.policy import Policy
from flowerpress.compression.rates.wire import pack_plan, unpack_plan
from tests.hostile.mutate import mutated
from tests.hostile.odd_policies import (
    MODEL,
    OTHER,
    Odd,
    attempt,
    good_plan,
    odd_plans,
    odd_policies,
)
from tests.hostile.specimens import Specimen

COUNT = 1000
USED = 60
MEGABYTES = 10 << 20


def update(manifest: Manifest, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        spec.name: rng.standard_normal(spec.shape).astype(spec.dtype)
        if spec.is_float
        else rng.integers(0, 9, spec.shape).astype(spec.dtype)
        for spec in manifest.specs
    }


def use(choice: Policy | RatePlan) -> bool:
    """Code an update with what was accepted; tell whether its budget allows it."""
    tensors = update(MODEL)
    target = choice.target(MODEL) if isinstance(choice, Policy) else choice.target_bytes
    try:
        frames, _ = encode_frames(MODEL, choice.plan(MODEL), tensors, np.random.default_rng(1))
    except ConfigError:
        return False  # a budget that an update exceeds even at the hardest
    if target is not None:
        coded = [Coded(frame.codec, bytes(frame.body)) for frame in frames]
        assert message_bytes(coded) <= target
    decoded = dict(decode_frames(MODEL, frames))
    assert len(decoded) == len(MODEL)
    for index, spec in enumerate(MODEL.specs):
        values = decoded[index].dense()
        assert np.isfinite(values).all()
        if not spec.is_float:
            np.testing.assert_array_equal(values.reshape(spec.shape), tensors[spec.name])
    return True


@pytest.mark.parametrize("kind", [odd_policies, odd_plans])
def test_each_is_refused_in_words_or_round_trips_and_works(kind: type) -> None:
    used: dict[Policy | RatePlan, None] = {}
    refused: Counter[str] = Counter()
    for odd in islice(kind(1), COUNT):
        found = attempt(odd)
        if isinstance(found, str):
            refused[" ".join(found.split()[:4])] += 1
        else:
            used[found] = None
    # That the generator makes both, and not the same again and again.
    assert len(used) > COUNT // 40
    assert len(refused) > 40
    assert sum(map(use, islice(used, USED))) > 10


def test_the_same_files_every_time() -> None:
    for kind in (odd_policies, odd_plans):
        assert list(islice(kind(1), 50)) == list(islice(kind(1), 50)) != list(islice(kind(2), 50))


def crafted() -> Iterator[tuple[str, Odd, str]]:
    """What mutation does not find: (name, file, part of the message)."""
    plan = json.loads(good_plan(MODEL).to_json())

    def changed(**values: object) -> str:
        return json.dumps({**plan, **values})

    def entries(**values: object) -> str:
        return changed(tensors=[{**each, **values} for each in plan["tensors"]])

    policies = {
        "ten megabytes": ("default = '" + "x" * MEGABYTES + "'", "more than 1048576"),
        "a megabyte of text": ("default = '" + "x" * (1 << 19) + "'", "524288 characters"),
        "a megabyte of dots": (".".join("a" * (1 << 18)) + " = 1", "thousands of dots"),
        "a table of dots": ("[" + ".".join("a" * 2000) + "]", "unknown key|nested deeper"),
        "brackets": ("default = " + "[" * 100_000, "nested deeper"),
        "braces": ("a = " + "{a = " * 100_000, "nested deeper"),
        "many keys": ("\n".join(f"k{i} = 1" for i in range(60_000)), "unknown key"),
        "many rules": ("[[tensor]]\nmatch = '*'\ncodec = 'rd'\n" * 20_000, "at most 1000"),
        "many values": (f"default = [{'1, ' * 200_000}]", "more than 100000 values"),
        "digits": ("default = " + "9" * 100_000, "not valid TOML"),
        "bits": ("[budget]\ntarget_bytes = 0x" + "f" * 100_000, "an integer of 400000 bits"),
        "a bomb": ("[[tensor]]\nmatch = 're:(.*)*x'\ncodec = 'rd'", "take forever"),
        "another bomb": (f"[[tensor]]\nmatch = 're:{'.*' * 99}x'\ncodec = 'rd'", "too long"),
        "code": ("default = \"__import__('os').system('true')\"", "unknown codec"),
        "a file as codec": ("default = 'odd.toml'", "unknown codec"),
        "a file in a menu": ("[budget]\ntarget_bytes = 900\nmenu = ['odd.toml']", "unknown codec"),
        "no name": ("[[tensor]]\nmatch = 'fc2*'\ncodec = 'rd'", "fc1.weight"),
        "a surrogate": ("default = '\ud800'", "invisible characters"),
        "right to left": ("default = '\u202eabc'", "invisible characters"),
    }
    plans = {
        "ten megabytes": (changed(allocator="x" * MEGABYTES), "allocator is 'xxx"),
        "forty megabytes": (" " * (4 * MEGABYTES), "too many for a plan"),
        "brackets": ("[" * 1_000_000, "nested too deeply"),
        "braces": ('{"tensors":' * 1_000_000, "nested too deeply"),
        "digits": ('{"format": ' + "9" * 100_000 + "}", "not valid JSON"),
        "not a number": ('{"format": NaN}', "NaN is not a number"),
        "twice": ('{"format": 1, "format": 2}', "a key is given twice"),
        "null": ("null", "must be an object"),
        "empty": ("", "not valid JSON"),
        "a tensor twice": (changed(tensors=plan["tensors"] * 2), "names a tensor twice"),
        "no tensors": (changed(tensors=[]), "another model: the plan says nothing of"),
        "one tensor less": (changed(tensors=plan["tensors"][1:]), "says nothing of 'conv1.weight'"),
        "another order": (changed(tensors=plan["tensors"][::-1]), "another|order"),
        "another model": (good_plan(OTHER).to_json(), "the model has no 'head.weight'"),
        "another hash": (changed(manifest="0" * 16), "other shapes, types or another order"),
        "code": (entries(codec="__import__('os').system('true')"), "is not of the form"),
        "a file as codec": (entries(codec="odd.toml"), "unknown codec 'odd.toml'"),
        "a plan as codec": (entries(codec="plan.json"), "unknown codec 'plan.json'"),
        "groups of a scalar": (entries(groups=["int8"] * 2), "groups"),
        "a thousand groups": (entries(groups=["int8"] * 1000), "a list of up to 256"),
        "a recipe too long": (
            changed(
                tensors=[
                    {**each, "groups": [f"stc(density=0.{i + 1:03})" for i in range(16)]}
                    if each["name"] == "fc1.weight"
                    else each
                    for each in plan["tensors"]
                ]
            ),
            "",
        ),
        "a menu twice": (changed(menu=["int8", "int8"]), "'int8' is twice in the menu"),
        "nothing allowed": (changed(budget={"target_bytes": 0}), "must be a positive integer"),
        "true bytes": (changed(budget={"target_bytes": True}), "must be a positive integer"),
    }
    for kind, files in (("policy", policies), ("plan", plans)):
        for name, (text, says) in files.items():
            yield f"{kind}: {name}", Odd(kind, text), says


@pytest.mark.parametrize(
    ("odd", "says"), [pytest.param(odd, says, id=name) for name, odd, says in crafted()]
)
def test_what_somebody_thought_of(odd: Odd, says: str) -> None:
    found = attempt(odd)
    if not says:
        assert isinstance(found, RatePlan)
        assert use(found)
        return
    assert isinstance(found, str)
    assert any(part in found for part in says.split("|")), found


def test_files_that_name_each_other_end(tmp_path: Path) -> None:
    (tmp_path / "self.toml").write_text("plan = 'self.toml'")
    (tmp_path / "one.toml").write_text("plan = 'two.toml'")
    (tmp_path / "two.toml").write_text("plan = 'one.toml'")
    (tmp_path / "plan.json").write_text('{"format": "flowerpress.plan/1", "plan": "self.toml"}')
    (tmp_path / "three.toml").write_text("plan = 'plan.json'")
    for name in ("self", "one", "three"):
        with pytest.raises(ConfigError, match=r"not valid JSON|unknown key"):
            choose(str(tmp_path / f"{name}.toml"))


def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path) -> None:
    start = time.monotonic()
    os.mkfifo(tmp_path / "pipe.toml")
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "loop.toml").symlink_to("loop.toml")
    (tmp_path / "loop.json").symlink_to("loop.json")
    (tmp_path / "zero.toml").symlink_to("/dev/zero")
    (tmp_path / "zero.json").symlink_to("/dev/zero")
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "names.toml").write_text("plan = 'pipe.json'")
    (tmp_path / "device.toml").write_text("plan = '/dev/zero'")
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(ConfigError, match=r"cannot read"):
            choose(path)
    assert time.monotonic() - start < 5


def test_links_and_absolute_paths_are_the_users_own(tmp_path: Path) -> None:
    good_plan(MODEL).save(tmp_path / "elsewhere" / "plan.json")
    (tmp_path / "link.json").symlink_to(tmp_path / "elsewhere" / "plan.json")
    for name in ("link.json", "elsewhere/plan.json", str(tmp_path / "elsewhere" / "plan.json")):
        (tmp_path / "mine.toml").write_text(f"plan = {json.dumps(name)}")
        assert Policy.read(tmp_path / "mine.toml").base == good_plan(MODEL)


def test_plans_on_the_wire_are_wire_errors_or_sound() -> None:
    """Whole plans and differences, damaged, with no checksum in the way."""
    rng = random.Random(1)
    held = good_plan(MODEL)
    other = Policy.from_toml("[[tensor]]\nmatch = 'fc1.*'\ncodec = 'stc'\n").resolve(MODEL)
    bodies = [pack_plan(held), pack_plan(other), pack_plan(other, held), pack_plan(held, other)]
    assert unpack_plan(bodies[2], MODEL, held).texts == other.texts
    others = [Specimen("", MODEL.specs[0], RAW, body, None) for body in bodies]
    ended: Counter[str] = Counter()
    said: set[str] = set()
    for number in range(4 * COUNT):
        body = mutated(bodies[number % len(bodies)], others, rng)
        try:
            found = unpack_plan(body, MODEL, rng.choice((None, held, other)))
        except WireError as error:
            ended[type(error).__name__] += 1
            said.add(str(error))
            continue
        ended["sound"] += 1
        assert len(found.plan(MODEL).codecs) == len(MODEL)
        assert unpack_plan(pack_plan(found), MODEL, None).texts == found.texts
    assert all(each.isprintable() and len(each) < 1000 for each in said)
    assert ended["FormatError"] + ended["TruncatedError"] > COUNT // 10
    assert ended["SequenceError"] > COUNT // 10
    assert ended["sound"] > COUNT // 100
