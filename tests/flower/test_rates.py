"""Policies and plans in a running federation: who is told what, and what is sent then."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Context, Message
from flwr.clientapp.typing import ClientAppCallable, Mod
from flwr.serverapp.strategy import FedAvg, Result
from numpy.typing import NDArray

from flowerpress.client import press
from flowerpress.compression import ConfigError, Manifest
from flowerpress.compression.rates.plan import Entry, RatePlan
from flowerpress.compression.rates.policy import Policy
from flowerpress.protos import Instruction, Receipt
from flowerpress.server import Pressed

Start = Callable[..., Result]
Arrays = dict[str, NDArray[np.float32]]

TOPK = '[budget]\ntarget_bytes = 1500\nmenu = "topk"\nevery = 2\n'


class Seen:
    """What passed between the server and each client's mod, in training."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int, Instruction]] = []
        self.said: list[tuple[int, int, Receipt]] = []

    def mod(self, message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        told = Instruction.read(message.content)
        assert told is not None
        partition = int(context.node_config["partition-id"])
        train = message.metadata.message_type.startswith("train")
        if train:
            self.told.append((told.round, partition, told))
        reply = call_next(message, context)
        if train and reply.has_content():
            self.said.append((told.round, partition, Receipt.read(reply.content)))
        return reply

    def of(self, number: int) -> list[Instruction]:
        return [told for round_, _, told in self.told if round_ == number]


def pressed(uplink: str | Path | Policy | RatePlan) -> Pressed:
    return Pressed(FedAvg(), uplink=uplink, downlink="none", seed=0, run_id=1)


def test_a_plan_is_sent_once_and_then_what_changed(start: Start) -> None:
    seen = Seen()
    strategy = pressed(Policy.from_toml(TOPK))
    start(strategy, [seen.mod, press()], rounds=6)
    assert not strategy.rejections
    first, second, third, fourth = (seen.of(number) for number in (1, 2, 3, 4))
    assert all(told.plan and told.target_bytes == 1500 for told in first)
    asked = [len([t for t in seen.of(number) if t.settings]) for number in range(1, 7)]
    assert asked == [3, 0, 3, 0, 3, 0]
    # Solved from what the first round measured: a difference, shorter than the plan.
    assert {told.plan_digest for told in second} != {told.plan_digest for told in first}
    assert all(told.plan for told in second)
    assert all(not told.plan for told in third)
    assert {told.plan_digest for told in third} == {told.plan_digest for told in second}
    assert {told.plan_digest for told in fourth}
    assert sum(bool(receipt.points) for _, _, receipt in seen.said) == 9
    assert strategy.plan_in_force is not None
    assert len(set(strategy.plan_in_force.values())) > 1


def test_budgets_are_kept_with_what_is_measured(start: Start) -> None:
    strategy = pressed(Policy.from_toml(TOPK))
    start(strategy, [press()], rounds=6)
    for number in range(1, 7):
        for sent in strategy.meter.of(number).uplink.by_client.values():
            assert 0.97 * 1500 <= sent <= 1500


def test_each_client_has_the_budget_of_its_link(start: Start) -> None:
    policy = '[budget]\ndeadline = 1.0\nrate = 8000\nmenu = "rd"\n'
    rates = (4_000.0, 8_000.0, 12_000.0, 0.0)
    seen = Seen()
    strategy = pressed(Policy.from_toml(policy))
    mods = [seen.mod, press(uplink_rate=lambda c: rates[int(c.node_config["partition-id"])])]
    start(strategy, mods, rounds=3)
    assert not strategy.rejections
    told = {(number, client): t.target_bytes for number, client, t in seen.told}
    assert {told[1, client] for client in range(4)} == {1000}  # nothing is known yet
    slowest = min(strategy.meter.of(1).uplink.by_client.values())
    assert slowest <= 500  # but a client knows its own uplink
    assert [told[2, client] for client in range(4)] == [500, 1000, 1500, 1000]
    nodes = {t.client: client for _, client, t in seen.told}
    for number in (2, 3):
        by_client = strategy.meter.of(number).uplink.by_client
        for node, sent in by_client.items():
            assert sent <= told[number, nodes[node]]
        by_budget = sorted((told[number, nodes[n]], sent) for n, sent in by_client.items())
        assert by_budget[0][1] < by_budget[-1][1]


def test_a_client_that_lost_everything_is_sent_the_whole_plan(start: Start) -> None:
    seen = Seen()

    def forget(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        told = Instruction.read(message.content)
        if told and told.round == 5 and context.node_config["partition-id"] == 1 and told.held:
            context.state.clear()
        return call_next(message, context)

    strategy = Pressed(
        FedAvg(), uplink=Policy.from_toml(TOPK), downlink="stc", first="fp16", seed=0, run_id=1
    )
    start(strategy, [seen.mod, forget, press()], rounds=6)
    assert not strategy.rejections
    again = [t for number, client, t in seen.told if number == 5 and client == 1]
    assert len(again) == 2  # what it could not use, and then everything
    assert not again[0].plan
    assert again[1].plan
    assert again[1].held == 0


def test_a_schedule_moves_the_budget_and_not_the_sum(start: Start) -> None:
    seen = Seen()
    policy = '[budget]\ntarget_bytes = 1200\n[schedule]\nkind = "phase"\nearly = 1.4\n'
    start(pressed(Policy.from_toml(policy)), [seen.mod, press()], rounds=5)
    targets = [seen.of(number)[0].target_bytes for number in range(1, 6)]
    assert targets == sorted(targets, reverse=True)
    assert targets[0] == 1680
    assert abs(sum(targets) - 5 * 1200) <= 5


def test_a_schedule_without_a_budget_moves_densities(start: Start) -> None:
    seen: list[dict[str, str] | None] = []
    policy = (
        'default = "topk(density=0.1)"\nvectors = "fp16"\n'
        '[schedule]\nkind = "cubic"\nstart = 4.0\nend = 1.0\n'
    )
    strategy = pressed(Policy.from_toml(policy))

    def watch(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        if message.metadata.message_type.startswith("train"):
            seen.append(strategy.plan_in_force)
        return call_next(message, context)

    start(strategy, [watch, press()], rounds=4)
    assert not strategy.rejections
    texts = [plan["fc.weight"] for plan in seen[::4] if plan]
    # 1 + 3 (1 - (t - 1) / 3)^3, a tenth of the entries being 1
    assert texts == [
        "topk(density=0.4)",
        "topk(density=0.188889)",
        "topk(density=0.111111)",
        "topk(density=0.1)",
    ]
    assert all(plan and plan["fc.bias"] == "fp16" for plan in seen)


def test_accordion_is_gentle_while_the_model_moves_fast(start: Start) -> None:
    seen = Seen()
    policy = (
        "[budget]\ntarget_bytes = 1200\n"
        "[schedule]\naccordion = true\ngentle_factor = 3.0\nthreshold = 0.9\n"
    )
    start(pressed(Policy.from_toml(policy)), [seen.mod, press()], rounds=6)
    targets = [seen.of(number)[0].target_bytes for number in range(1, 7)]
    assert targets[:2] == [3600, 3600]  # a run begins in a critical phase
    assert targets[-1] == 1200


def test_nonsense_that_a_client_measured_leaves_it_out_and_nothing_else(start: Start) -> None:
    def lie(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        reply = call_next(message, context)
        receipt = Receipt.read(reply.content)
        if receipt.points and context.node_config["partition-id"] in (0, 1):
            nan = np.full(len(receipt.points) // 8, np.nan).tobytes()
            junk = nan if context.node_config["partition-id"] == 0 else receipt.points[:-3]
            replace(receipt, points=junk).write(reply.content)
        return reply

    strategy = pressed(Policy.from_toml(TOPK))
    start(strategy, [lie, press()], rounds=2)
    found = {(left.round, left.field) for left in strategy.rejections}
    assert found == {(1, "points")}
    assert {left.error for left in strategy.rejections} == {"NonFiniteError", "TruncatedError"}


def test_a_plan_file_at_both_ends(start: Start, first_model: Arrays, tmp_path: Path) -> None:
    manifest = Manifest.of(first_model)
    texts = ("int8", "topk(density=0.05)", "none")
    entries = tuple(Entry(s.name, t) for s, t in zip(manifest.specs, texts, strict=True))
    path = tmp_path / "plan.json"
    RatePlan(entries, manifest.digest.hex()).save(path)
    served, own = pressed(path), pressed("int8")
    results = [
        start(served, [press()], rounds=3),
        start(own, [press(path)], rounds=3),
    ]
    for name in first_model:
        one, other = (result.arrays[name].numpy() for result in results)
        np.testing.assert_array_equal(one, other, strict=True)
    assert served.plan_in_force == {e.name: e.codec for e in entries}
    assert own.plan_in_force is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[[tensor]]\nmatch = "lstm*"\ncodec = "int8"\n', "matches no"),
        ("[budget]\ntarget_bytes = 20\n", "20 bytes"),
    ],
)
def test_a_policy_for_another_model_ends_the_run_before_anything_is_sent(
    start: Start, text: str, says: str
) -> None:
    seen = Seen()
    strategy = pressed(Policy.from_toml(text))
    with pytest.raises(ConfigError, match=says):
        start(strategy, [seen.mod, press()], rounds=2)
    assert not seen.told


def test_wrong_files_are_refused_when_they_are_named(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text("[budget]\ntarget_byte = 3\n")
    mods: list[Callable[[], Mod | Pressed]] = [lambda: press(path), lambda: pressed(path)]
    for make in mods:
        with pytest.raises(ConfigError, match="target_bytes"):
            make()
    with pytest.raises(ConfigError, match="cannot read"):
        pressed(tmp_path / "nothing.json")
    with pytest.raises(ConfigError, match=r"neither a policy"):
        pressed(tmp_path / "plan.yaml")
