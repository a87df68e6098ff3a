"""A third-party app gets compression by two lines: ``mods=[press()]`` and ``Pressed(...)``."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from flwr.app import MetricRecord, RecordDict
from flwr.serverapp.strategy import (
    FedAdam,
    FedAvg,
    FedAvgM,
    FedMedian,
    FedProx,
    FedTrimmedAvg,
    Krum,
    Result,
    Strategy,
)
from numpy.typing import NDArray

from flowerpress.client import press
from flowerpress.compression import ConfigError
from flowerpress.server import Pressed

Start = Callable[..., Result]

STRATEGIES: dict[str, Callable[[], Strategy]] = {
    "FedAvg": FedAvg,
    "FedAvgM": FedAvgM,
    "FedProx": lambda: FedProx(proximal_mu=0.1),
    "FedAdam": FedAdam,
    "FedMedian": FedMedian,
    "FedTrimmedAvg": FedTrimmedAvg,
    "Krum": lambda: Krum(num_malicious_nodes=1),
}


def arrays_of(result: Result) -> dict[str, NDArray[np.float32]]:
    return {name: array.numpy() for name, array in result.arrays.items()}


@pytest.mark.parametrize("make", STRATEGIES.values(), ids=STRATEGIES.keys())
def test_without_compression_the_model_is_bit_identical_to_plain_flower(
    make: Callable[[], Strategy], start: Start
) -> None:
    plain = start(make())
    pressed = start(Pressed(make(), uplink="none"), [press()])
    # Flower's FedAdam widens the model to float64 after the first round, and then sends twice the
    # bytes; pressed clients keep the dtype that they began with.
    rounding = 1e-5 if isinstance(make(), FedAdam) else 0.0
    for name, array in arrays_of(plain).items():
        np.testing.assert_allclose(arrays_of(pressed)[name], array, rtol=rounding, atol=rounding)
    for before, after in (
        (plain.train_metrics_clientapp, pressed.train_metrics_clientapp),
        (plain.evaluate_metrics_clientapp, pressed.evaluate_metrics_clientapp),
    ):
        assert after.keys() == before.keys() == {1, 2, 3}
        for number, metrics in before.items():
            assert float(str(after[number]["loss"])) == pytest.approx(
                float(str(metrics["loss"])), rel=rounding, abs=0
            )


@pytest.mark.parametrize("make", STRATEGIES.values(), ids=STRATEGIES.keys())
def test_any_strategy_learns_with_a_thin_uplink_and_downlink(
    make: Callable[[], Strategy], start: Start
) -> None:
    # A median over sparse updates is mostly zero: robust strategies want a dense codec.
    robust = isinstance(make(), FedMedian | FedTrimmedAvg | Krum)
    codec, factor = ("int8", 3) if robust else ("topk(density=0.1)", 8)
    strategy = Pressed(make(), uplink=codec, seed=1)
    result = start(strategy, [press()], rounds=10)
    losses = [float(str(m["loss"])) for m in result.evaluate_metrics_clientapp.values()]
    assert losses[-1] < 0.7 * losses[0]
    assert not strategy.rejections
    last = strategy.meter.of(10)
    assert last.uplink.total * factor < last.uplink.raw
    assert last.downlink.total * factor < last.downlink.raw


@pytest.mark.parametrize("codec", ["lossless", "fp16", "int8", "qsgd"])
def test_gentle_codecs_end_close_to_plain_flower(codec: str, start: Start) -> None:
    plain = arrays_of(start(FedAvg(), rounds=6))
    pressed = arrays_of(start(Pressed(FedAvg(), uplink=codec, seed=0), [press()], rounds=6))
    error = sum(float(((pressed[k] - v) ** 2).sum()) for k, v in plain.items())
    assert error < 2e-3 * sum(float((v**2).sum()) for v in plain.values())


def test_the_same_seed_sends_the_same_bytes_and_another_seed_others(start: Start) -> None:
    def run(seed: int) -> tuple[int, NDArray[np.float32]]:
        strategy = Pressed(FedAvg(), uplink="qsgd(levels=1)", run_id=5, seed=seed)
        result = start(strategy, [press()])
        return strategy.meter.up, arrays_of(result)["fc.weight"]

    (bytes_a, model_a), (bytes_b, model_b), (_, model_c) = run(1), run(1), run(2)
    assert bytes_a == bytes_b
    np.testing.assert_array_equal(model_a, model_b)
    assert not np.array_equal(model_a, model_c)


def test_a_client_may_choose_its_own_uplink(start: Start) -> None:
    strategy = Pressed(FedAvg(), uplink="none", downlink="none")
    start(strategy, [press("int8")], rounds=1)
    sent = strategy.meter.of(1).uplink
    assert sent.total * 3 < sent.raw
    assert not strategy.rejections


@pytest.mark.parametrize("codec", ["none", "stc"])
def test_metrics_are_aggregated_once_from_all_clients(codec: str, start: Start) -> None:
    seen: list[list[float]] = []

    def aggregate(contents: list[RecordDict], weighted_by: str) -> MetricRecord:
        counts = [float(str(c.metric_records["metrics"][weighted_by])) for c in contents]
        seen.append(sorted(counts))
        return MetricRecord({"clients": len(contents)})

    strategy = Pressed(FedAvg(train_metrics_aggr_fn=aggregate), uplink=codec, seed=0)
    result = start(strategy, [press()], rounds=2)
    assert seen == [[10.0, 11.0, 12.0, 13.0]] * 2
    assert result.train_metrics_clientapp[2] == MetricRecord({"clients": 4})


def test_the_mod_is_idle_under_a_strategy_that_is_not_pressed(start: Start) -> None:
    plain, with_mod = start(FedAvg()), start(FedAvg(), [press()])
    for name, array in arrays_of(plain).items():
        np.testing.assert_array_equal(arrays_of(with_mod)[name], array)


def test_a_client_without_the_mod_is_named_with_the_remedy(start: Start) -> None:
    strategy = Pressed(FedAvg(), uplink="none")
    start(strategy, [], rounds=1)
    assert len({r.node for r in strategy.rejections}) == 4
    assert {r.error for r in strategy.rejections} == {"ClientAppError"}


@pytest.mark.parametrize(
    ("codec", "words"),
    [
        ("stcc", "did you mean 'stc'"),
        ("stc(densty=0.1)", "did you mean 'density'"),
        ("stc(density=2)", "at most 1"),
        ("stc(density=x)", "must be a number"),
        ("stc(positions=golumb)", "did you mean 'golomb'"),
        ("int8(coder=huffmann)", "did you mean 'huffman'"),
        ("stc density", "not of the form"),
        ("qsgd(levels=3,levels=4)", "given twice"),
    ],
)
def test_a_codec_that_does_not_exist_is_refused_before_anything_starts(
    codec: str, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        Pressed(FedAvg(), uplink=codec)
    with pytest.raises(ConfigError, match=words):
        press(codec)
