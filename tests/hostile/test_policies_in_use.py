"""Odd policies and plans in use: refused before anything is sent, written or changed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable, Mod
from flwr.serverapp.strategy import FedAvg

from flowerpress.client import press
from flowerpress.compression import ConfigError, Manifest
from flowerpress.compression.rates.policy import Policy
from flowerpress.compression.rates.statistics import pack_points, unpack_points
from flowerpress.protos import Instruction, Receipt
from flowerpress.server import Pressed
from flowerpress.simulations.engines.inline import InlineGrid
from tests.cli.conftest import SMALL, command, stamps
from tests.flower.conftest import initial, make_app, run_strategy
from tests.hostile.odd_policies import MODEL, Odd, attempt, good_plan, odd_plans, odd_policies

FILES = 100
COMMANDS = 6
MANIFEST = Manifest.of(initial())


def refused(count: int, seed: int) -> Iterable[tuple[str, Odd]]:
    """Yield (name, file) of files that cannot be used with any model."""
    for kind, ending in ((odd_policies, "toml"), (odd_plans, "json")):
        bad = (odd for odd in kind(seed) if isinstance(attempt(odd, MANIFEST), str))
        for number, odd in enumerate(islice(bad, count)):
            yield f"{number}.{ending}", odd


def written(folder: Path, name: str, odd: Odd) -> Path:
    path = folder / name
    path.write_text(odd.text, encoding="utf-8", errors="surrogatepass")
    return path


class Listening(InlineGrid):
    """A grid that remembers how many messages it was given."""

    pushed = 0

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        asked = list(messages)
        self.pushed += len(asked)
        return super().push_messages(asked)


def test_pressed_and_press_send_nothing(tmp_path: Path) -> None:
    for name, odd in refused(FILES, seed=3):
        path = written(tmp_path, name, odd)
        grid = Listening(make_app([press()]), 2)
        for up, down in ((path, "none"), ("none", path)):
            with pytest.raises(ConfigError):
                run_strategy(Pressed(FedAvg(), uplink=up, downlink=down), grid=grid)
        assert grid.pushed == 0, odd
        try:
            mod = press(path)
        except ConfigError:
            continue
        # It can be read: whether it fits is known when there is a model, and the client says so.
        strategy = Pressed(FedAvg(), uplink="none", downlink="none")
        run_strategy(strategy, [mod], clients=2, rounds=1)
        assert [each.error for each in strategy.rejections] == ["ConfigError"] * 2


@pytest.mark.parametrize(
    "text",
    [
        "[[tensor]]\nmatch = 'conv2.*'\ncodec = 'int8'\n",
        "[[tensor]]\nmatch = 'fc.bias'\ncodec = 'int8'\ngroups = 100\n",
        "[budget]\ntarget_bytes = 20\n",
        "[budget]\ntarget_bytes = 5000\n[weights]\n'conv2.*' = 2.0\n",
        "[[tensor]]\nmatch = 'fc.*'\ncodec = 'rd(relative=3)'\n[budget]\ntarget_bytes = 5000\n",
        "[[tensor]]\nmatch = 'fc.*'\ncodec = 'rd'\n[budget]\ntarget_bytes = 5000\nmenu = 'mixed'\n",
    ],
)
def test_a_policy_for_another_model_is_refused_before_the_first_message(
    tmp_path: Path, text: str
) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(text)
    grid = Listening(make_app([press()]), 2)
    strategy = Pressed(FedAvg(), uplink=path, downlink="none")
    with pytest.raises(ConfigError, match=r"policy\.toml"):
        run_strategy(strategy, grid=grid, rounds=1)
    assert grid.pushed == 0


def test_commands_leave_folders_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "mine"
    out.mkdir()
    (out / "notes.txt").write_text("keep me")
    good_plan(MODEL).save(tmp_path / "other-model.json")
    (tmp_path / "no-match.toml").write_text("[[tensor]]\nmatch = 'conv9.*'\ncodec = 'int8'\n")
    paths = [tmp_path / "other-model.json", tmp_path / "no-match.toml", tmp_path / "nowhere.toml"]
    paths += [written(tmp_path, name, odd) for name, odd in refused(COMMANDS // 2, seed=4)]
    before = stamps(out)
    everything = sorted(tmp_path.iterdir())
    for path in paths:
        for words in (
            ("simulate", *SMALL, "--uplink", path, "--out", out),
            ("simulate", *SMALL, "--uplink", "none", "--downlink", path, "--out", out),
            ("compare", *SMALL, "--codecs", f"none,{path}", "--seeds", "1", "--out", out),
            ("tune", "verify", *SMALL, "--plan", path, "--output", out),
        ):
            said = command(*words)
            assert said.code == 2, (words, said.out, said.err)
            assert "Traceback" not in said.err
            # Behind lines of progress where a profile had to be measured first.
            assert said.err.splitlines()[-1].startswith("flowerpress: ")
            assert len(said.err) < 4000
            assert stamps(out) == before
            assert sorted(tmp_path.iterdir()) == everything


MENU = ("int8", "nf4", "stc(density=0.05)")
BUDGET = """
vectors = "fp16"
[budget]
target_bytes = 5000
menu = ["int8", "nf4", "stc(density=0.05)"]
every = 1
"""


def meddling(
    change: Callable[[Any], Any], kind: type, rounds: range, *, everybody: bool = False
) -> Mod:
    """Return a mod outside ``press()`` that changes the first client's instruction or receipt."""

    def mod(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        number = int(str(message.content.config_records["config"]["server-round"]))
        chosen = number in rounds and (everybody or context.node_config["partition-id"] == 0)
        if kind is Instruction and chosen:
            asked = Instruction.read(message.content)
            assert asked is not None
            change(asked).write(message.content)
        reply = call_next(message, context)
        if kind is Receipt and chosen:
            change(Receipt.read(reply.content)).write(reply.content)
        return reply

    return mod


def damaged(blob: bytes, rng: random.Random) -> bytes:
    if not blob:
        return blob
    at = rng.randrange(len(blob))
    return blob[:at] + bytes([blob[at] ^ 1 << rng.randrange(8)]) + blob[at + 1 :]


@pytest.mark.parametrize("seed", range(4))
def test_points_that_nobody_measured_leave_the_plan_to_the_others(seed: int) -> None:
    rng = random.Random(seed)
    strategy = Pressed(FedAvg(), uplink=Policy.from_toml(BUDGET), downlink="none", seed=1)

    def change(receipt: Receipt) -> Receipt:
        points = receipt.points[: rng.randrange(20)] + rng.randbytes(40)
        return replace(receipt, points=points if receipt.points else b"")

    run_strategy(strategy, [meddling(change, Receipt, range(1, 9)), press()], rounds=3)
    assert strategy.plan_in_force is not None
    assert set(strategy.plan_in_force) == set(initial())
    assert {each.error for each in strategy.rejections} <= {
        "FormatError",
        "TruncatedError",
        "NonFiniteError",
        "LimitError",
        "ManifestError",
    }
    assert len({each.node for each in strategy.rejections}) == 1
    assert set(strategy.plan_in_force.values()) <= {"fp16", *MENU}


def test_measurements_that_no_plan_can_meet_leave_the_plan_in_force() -> None:
    policy = Policy.from_toml(BUDGET.replace(f', "{MENU[2]}"', ""))
    strategy = Pressed(FedAvg(), uplink=policy, downlink="none", seed=1)
    names = policy.open(MANIFEST)
    sizes = np.array([spec.size for spec in MANIFEST.specs if spec.name in names], np.int64)

    def change(receipt: Receipt) -> Receipt:
        if not receipt.points:
            return receipt
        honest = unpack_points(receipt.points, names, MENU[:2], sizes)
        return replace(receipt, points=pack_points(replace(honest, bytes=honest.bytes * 1e3)))

    first = policy.resolve(MANIFEST).texts
    run_strategy(strategy, [meddling(change, Receipt, range(1, 9), everybody=True), press()])
    assert strategy.plan_in_force == first
    assert not strategy.rejections


@pytest.mark.parametrize("seed", range(8))
def test_a_plan_that_was_changed_on_its_way_is_not_used(seed: int) -> None:
    rng = random.Random(seed)
    strategy = Pressed(FedAvg(), uplink=Policy.from_toml(BUDGET), downlink="none", seed=1)

    def change(asked: Instruction) -> Instruction:
        return replace(asked, plan=damaged(asked.plan, rng))

    run_strategy(strategy, [meddling(change, Instruction, range(1, 3)), press()], rounds=4)
    # What it got was refused or asked for again; in the rounds after that it takes part.
    assert {each.round for each in strategy.rejections} <= {1, 2}
    assert len({each.node for each in strategy.rejections}) <= 1
    assert {each.field for each in strategy.rejections} <= {"plan"}


def test_apps_are_what_they_were() -> None:
    """That the meddling above goes around a mod that works when left alone."""
    strategy = Pressed(FedAvg(), uplink=Policy.from_toml(BUDGET), downlink="none", seed=1)
    app = make_app([press()])
    assert isinstance(app, ClientApp)
    run_strategy(strategy, [press()], rounds=2)
    assert not strategy.rejections
    assert strategy.plan_in_force is not None
