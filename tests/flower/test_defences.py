"""Well-formed updates with bad intentions, through ``press()`` and ``Pressed``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message
from flwr.clientapp.typing import ClientAppCallable, Mod
from flwr.server.workflow import DefaultWorkflow, SecAggPlusWorkflow, SecAggWorkflow
from flwr.serverapp.strategy import FedAdam, FedAvg, FedAvgM, Krum, Result
from numpy.typing import NDArray

from flowerpress.client import press
from flowerpress.compression import ConfigError
from flowerpress.server import Pressed
from flowerpress.server.defences import Clip, Defence

Start = Callable[..., Result]
Arrays = dict[str, NDArray[np.float32]]
Tamper = Callable[[Arrays, Arrays], Arrays]


def hostile(change: Tamper, count: int = 1, examples: float | None = None) -> Mod:
    """Return a mod inside ``press()``: the first ``count`` partitions answer with ``change``.

    That is called with the model before and after training.
    """

    def mod(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        train = message.metadata.message_type == "train"
        before = {k: v.numpy() for k, v in message.content.array_records["arrays"].items()}
        reply = call_next(message, context)
        if train and int(context.node_config["partition-id"]) < count:
            after = {k: v.numpy() for k, v in reply.content.array_records["arrays"].items()}
            sent = change(before, after)
            reply.content["arrays"] = ArrayRecord({k: Array(v) for k, v in sent.items()})
            if examples is not None:
                reply.content.metric_records["metrics"]["num-examples"] = examples
        return reply

    return mod


def times(factor: float) -> Tamper:
    def change(before: Arrays, after: Arrays) -> Arrays:
        return {k: v + np.float32(factor) * (after[k] - v) for k, v in before.items()}

    return change


def far(before: Arrays, after: Arrays) -> Arrays:
    return {k: v + np.float32(5.0) for k, v in before.items()}


def gap(result: Result, arrays: Arrays) -> float:
    """Return how far the model is from ``arrays``; Euclidean."""
    found = {name: array.numpy() for name, array in result.arrays.items()}
    return float(np.sqrt(sum(((found[k].astype("f8") - v) ** 2).sum() for k, v in arrays.items())))


@pytest.mark.parametrize("codec", ["none", "int8", "stc"])
def test_a_forged_count_takes_over_plain_averaging_and_not_a_capped_one(
    codec: str, start: Start, first_model: Arrays
) -> None:
    def after_a_round(mods: list[Mod], defence: str | None) -> tuple[Result, Pressed]:
        strategy = Pressed(FedAvg(), uplink=codec, first="none", seed=0, defence=defence)
        return start(strategy, mods, rounds=1), strategy

    liar = [press(), hostile(far, examples=1e12)]
    claimed = {k: v + np.float32(5.0) for k, v in first_model.items()}
    whole = float(np.sqrt(sum(25.0 * v.size for v in first_model.values())))
    taken, _ = after_a_round(liar, None)
    capped, strategy = after_a_round(liar, "examples(times=3)")
    if codec != "stc":  # which sends a part of what is claimed
        assert gap(taken, claimed) < 0.05 * whole
    # Counts are 1e12, 11, 12 and 13: the median is 12.5 and the cap three times that.
    treated = {t.claimed: t.counted for t in strategy.treatments}
    assert treated == {1e12: 37.5, 11: 11, 12: 12, 13: 13}
    share = 37.5 / (37.5 + 11 + 12 + 13)
    assert gap(capped, first_model) <= 1.05 * share * whole + whole * 0.05


def test_the_mean_of_metrics_is_capped_like_that_of_updates(start: Start) -> None:
    def loss(defence: str | None) -> float:
        strategy = Pressed(FedAvg(), uplink="int8", seed=0, defence=defence)
        liar = hostile(lambda before, after: after, examples=1e12)

        def boast(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
            reply = call_next(message, context)
            if context.node_config["partition-id"] == 0 and reply.content.array_records:
                reply.content.metric_records["metrics"]["loss"] = 1e9
            return reply

        result = start(strategy, [press(), boast, liar], rounds=1)
        return float(str(result.train_metrics_clientapp[1]["loss"]))

    assert loss(None) == pytest.approx(1e9)
    assert loss("examples(most=12)") < 0.3e9


@pytest.mark.parametrize("codec", ["none", "int8", "stc"])
@pytest.mark.parametrize("make", [FedAvg, FedAvgM, FedAdam])
def test_an_absurd_change_is_left_out_once_and_not_sent_again(
    make: Callable[[], Any], codec: str, start: Start
) -> None:
    strategy = Pressed(make(), uplink=codec, seed=0, defence="clip")
    result = start(strategy, [press(), hostile(times(1e6))], rounds=3)
    # With error feedback a sparse client owes the rest of its absurd change for ever.
    assert [(r.round, r.error) for r in strategy.rejections] == [(n, "Outlier") for n in (1, 2, 3)]
    assert len({r.node for r in strategy.rejections}) == 1
    rejected = [t for t in strategy.treatments if t.rejected]
    assert len(rejected) == 3
    assert all(np.isfinite(array.numpy()).all() for array in result.arrays.values())
    assert len(strategy.treatments) == 12
    # What was dropped on purpose is in the books.
    (account,) = [strategy.verdicts.accounts[node] for node in {t.node for t in rejected}]
    assert (account.applied, account.dropped_updates) == (0, 3)
    assert account.dropped == pytest.approx(sum(t.mass for t in rejected))
    clipped = sum((1 - t.factor) * t.mass for t in strategy.treatments)
    assert strategy.verdicts.dropped == pytest.approx(clipped)


@pytest.mark.parametrize(
    ("codec", "defences"),
    [
        ("none", ["clip"]),
        ("int8", ["trimmed(share=0.2)", "median", "clip+trimmed"]),
        ("topk(density=0.2)", ["clip"]),
    ],
)
def test_a_fifth_that_pulls_backwards_ruins_the_mean_and_not_a_defended_one(
    codec: str, defences: list[str], start: Start, first_model: Arrays
) -> None:
    def distance(defence: str | None) -> float:
        inner = FedAvg(fraction_evaluate=0.0)
        strategy = Pressed(inner, uplink=codec, first="none", seed=0, defence=defence)
        mods = [press(), hostile(times(-10), count=2)]
        return gap(start(strategy, mods, clients=10, rounds=6), goal(first_model))

    wanted = goal(first_model)
    at_first = np.sqrt(sum(((wanted[k] - v) ** 2).sum() for k, v in first_model.items()))
    assert distance(None) > 1.2 * at_first
    for defence in defences:
        assert distance(defence) < 0.9 * at_first


def goal(model: Arrays) -> Arrays:
    """What the clients of these tests want on average (see ``conftest.target``), nearly."""
    shared = np.random.default_rng(100)
    return {k: (v + shared.standard_normal(v.shape)).astype("f4") for k, v in model.items()}


def test_values_near_the_largest_float_do_not_cost_the_others_their_round(
    start: Start, first_model: Arrays
) -> None:
    def huge(before: Arrays, after: Arrays) -> Arrays:
        return {k: np.full_like(v, 3e38) for k, v in before.items()}

    mods = [press(), hostile(huge, examples=1e15)]
    for defence in ("examples+clip", "trimmed(share=0.25)"):
        strategy = Pressed(FedAvg(), uplink="int8", first="none", seed=0, defence=defence)
        result = start(strategy, mods, rounds=1)
        assert 0 < gap(result, first_model) < 50


def test_a_round_of_nothing_but_absurd_changes_keeps_the_model(
    start: Start, first_model: Arrays
) -> None:
    rounds = []

    def later(before: Arrays, after: Arrays) -> Arrays:
        rounds.append(1)
        return times(1.0 if len(rounds) <= 4 else 1e9)(before, after)

    strategy = Pressed(FedAvg(), uplink="int8", seed=0, defence="clip")
    result = start(strategy, [press(), hostile(later, count=4)], rounds=2)
    assert [r.round for r in strategy.rejections] == [2] * 4
    assert gap(result, first_model) > 0


def test_a_defence_needs_a_strategy_that_takes_means() -> None:
    with pytest.raises(ConfigError, match="Krum aggregates in a way of its own"):
        Pressed(Krum(num_malicious_nodes=1), uplink="int8", defence="clip")


def test_a_median_of_sparse_updates_is_refused_before_a_run() -> None:
    with pytest.raises(ConfigError, match="dense uplink such as int8"):
        Pressed(FedAvg(), uplink="stc", defence="median")
    Pressed(FedAvg(), uplink="stc", defence=Defence(clip=Clip(quantile=0.8)))


def test_a_client_that_sends_sparse_updates_to_a_median_is_warned_about(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    strategy = Pressed(FedAvg(), uplink="int8", seed=0, defence="median")
    start(strategy, [press("topk(density=0.05)")], rounds=1)
    assert "of the values that clients sent are zero" in caplog.text


@pytest.mark.parametrize(
    "make",
    [
        lambda: SecAggPlusWorkflow(num_shares=3, reconstruction_threshold=2),
        lambda: SecAggWorkflow(reconstruction_threshold=2),
        lambda: DefaultWorkflow(
            fit_workflow=SecAggPlusWorkflow(num_shares=3, reconstruction_threshold=2)
        ),
    ],
)
def test_secure_aggregation_is_refused_with_the_reason(make: Callable[[], Any]) -> None:
    with pytest.raises(ConfigError, match="masks cancel only in a sum of vectors with the same"):
        Pressed(make(), uplink="stc")


def test_a_strategy_that_asks_for_masks_is_refused_before_anything_is_sent(start: Start) -> None:
    class Masking(FedAvg):
        def configure_train(self, *args: Any, **kwargs: Any) -> Any:
            for message in super().configure_train(*args, **kwargs):
                message.content["secaggplus_configs"] = ConfigRecord({"stage": "setup"})
                yield message

    strategy = Pressed(Masking(), uplink="stc", seed=0)
    with pytest.raises(ConfigError, match="masks cancel"):
        start(strategy, [press()], rounds=1)
    assert strategy.meter.down == 0
