"""Means of updates: against NumPy, against Flower's own, and merged."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords
from numpy.typing import NDArray

from flowerpress.compression import Manifest, decode_frames, encode_frames, preset
from flowerpress.protos import Kind
from flowerpress.server import FlowerMean, Meter, StreamingMean
from flowerpress.server.aggregate import Aggregator, as_model
from flowerpress.server.intake import Received

Arrays = dict[str, NDArray[Any]]


def model(seed: int) -> Arrays:
    rng = np.random.default_rng(seed)
    return {
        "w": rng.standard_normal((30, 20)).astype(np.float32),
        "half": rng.standard_normal(7).astype(np.float16),
        "steps": np.asarray(10 * seed, np.int64),
    }


def received(codec: str, arrays: Arrays, kind: Kind) -> Received:
    manifest = Manifest.of(arrays)
    frames, _ = encode_frames(
        manifest, preset(codec).plan(manifest), arrays, np.random.default_rng(0)
    )
    return Received(kind, tuple(decode_frames(manifest, frames)), sequence=1)


def total(aggregator: Aggregator, updates: list[tuple[Received, float]]) -> Arrays:
    for update, weight in updates:
        aggregator.accumulate(update, weight)
    return aggregator.result()


WEIGHTS = (3.0, 10.0, 0.5)


@pytest.mark.parametrize("codec", ["none", "stc(density=0.2)", "int8"])
def test_the_streaming_mean_is_the_model_plus_the_mean_change(codec: str) -> None:
    base, manifest = model(0), Manifest.of(model(0))
    updates = [received(codec, model(seed), Kind.DELTA) for seed in (1, 2, 3)]
    mean = total(StreamingMean(manifest, base, base), list(zip(updates, WEIGHTS, strict=True)))
    changes = [
        {manifest.specs[i].name: d.dense().astype(np.float64) for i, d in u.decoded}
        for u in updates
    ]
    for name in ("w", "half"):
        expected = sum(w * c[name] for w, c in zip(WEIGHTS, changes, strict=True)) / sum(
            WEIGHTS
        ) + base[name].reshape(-1)
        np.testing.assert_allclose(
            mean[name].reshape(-1), expected, rtol=0, atol=2e-3 if name == "half" else 1e-6
        )
    # Integers are values, averaged and rounded: (3*10 + 10*20 + .5*30) / 13.5 = 18.1...
    assert mean["steps"] == 18
    assert {k: v.dtype for k, v in mean.items()} == {k: v.dtype for k, v in base.items()}


def test_models_count_with_their_difference_to_what_was_held() -> None:
    x, held = model(0), model(9)
    manifest = Manifest.of(x)
    client = model(1)
    mean = total(StreamingMean(manifest, x, held), [(received("none", client, Kind.MODEL), 2.0)])
    np.testing.assert_allclose(mean["w"], x["w"] + (client["w"] - held["w"]), rtol=0, atol=1e-6)
    same = as_model(received("none", client, Kind.MODEL), manifest, x, held)
    np.testing.assert_allclose(same["w"], mean["w"], rtol=0, atol=1e-6)


def test_two_halves_merged_are_the_whole() -> None:
    base, manifest = model(0), Manifest.of(model(0))
    updates = [
        (received("stc(density=0.2)", model(s), Kind.DELTA), w)
        for s, w in zip(range(1, 4), WEIGHTS, strict=True)
    ]
    whole = total(StreamingMean(manifest, base, base), updates)
    left, right = StreamingMean(manifest, base, base), StreamingMean(manifest, base, base)
    for aggregator, part in ((left, updates[:1]), (right, updates[1:])):
        for update, weight in part:
            aggregator.accumulate(update, weight)
    left.merge(right)
    for name, array in left.result().items():
        np.testing.assert_allclose(array, whole[name], rtol=0, atol=1e-6)


def test_the_mean_of_models_is_flowers_own_to_the_bit() -> None:
    clients = [{"w": model(seed)["w"], "half": model(seed)["half"]} for seed in (1, 2, 3)]
    manifest = Manifest.of(clients[0])
    mean = total(
        FlowerMean(manifest, clients[0], clients[0]),
        [(received("none", c, Kind.MODEL), w) for c, w in zip(clients, WEIGHTS, strict=True)],
    )
    flower = aggregate_arrayrecords(
        [
            RecordDict(
                {
                    "arrays": ArrayRecord({k: Array(v) for k, v in client.items()}),
                    "metrics": MetricRecord({"n": weight}),
                }
            )
            for client, weight in zip(clients, WEIGHTS, strict=True)
        ],
        "n",
    )
    for name, array in flower.items():
        np.testing.assert_array_equal(mean[name], array.numpy(), strict=True)


@pytest.mark.parametrize("mean", [StreamingMean, FlowerMean])
def test_a_mean_of_nothing_is_refused(mean: type[StreamingMean | FlowerMean]) -> None:
    with pytest.raises(ZeroDivisionError, match="no update"):
        mean(Manifest.of(model(0)), model(0), model(0)).result()


def test_the_meter_adds_up_by_every_key() -> None:
    meter = Meter()
    up = meter.of(2).uplink
    up.record(7, 100, 4000, {})
    up.attribute(7, {"w": 60, "b": 10})
    up.record(8, 50, 4000, {"w": 45})
    assert (up.total, up.raw, meter.up, meter.down) == (150, 8000, 150, 0)
    assert dict(up.by_client) == {7: 100, 8: 50}
    assert dict(up.by_tensor) == {"(headers)": 35, "w": 105, "b": 10}
    assert dict(up.bodies) == {7: 70, 8: 45}
    assert meter.of(3).uplink.total == 0
