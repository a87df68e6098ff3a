"""Defences by themselves: bounds, caps, trimmed means and medians of decoded changes."""

from __future__ import annotations

import json
import math
import statistics
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from flwr.serverapp.strategy import FedAvg
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from flowerpress.compression import (
    ConfigError,
    Decoded,
    Dense,
    Manifest,
    NonFiniteError,
    Sparse,
    UnknownNameError,
    preset,
)
from flowerpress.protos import APPLIED, Kind, Outcome
from flowerpress.server.aggregate import StreamingMean
from flowerpress.server.defences import (
    Clip,
    Defence,
    Examples,
    Guard,
    Guarded,
    Median,
    Trimmed,
    read_defence,
)
from flowerpress.server.defences.fitting import fitting
from flowerpress.server.defences.robust import TrimmedMean
from flowerpress.server.defences.spool import Spool
from flowerpress.server.defences.updates import as_change, norm_of, scaled
from flowerpress.server.intake import Received

Arrays = dict[str, NDArray[Any]]

MODEL: Arrays = {
    "w": np.arange(12, dtype=np.float32).reshape(3, 4),
    "steps": np.array([7, 9], np.int64),
}
MANIFEST = Manifest.of(MODEL)


QUICK = settings(deadline=None, max_examples=50)


def drawn(seed: int, clients: int) -> list[list[float]]:
    """Return changes of 12 values, with zeros and equal ones among them."""
    rng = np.random.default_rng(seed)
    table = rng.integers(-40, 40, (clients, 12)) * rng.choice([0.0, 0.125, 7.5], 12)
    return [[float(value) for value in row] for row in table]


changes = st.builds(drawn, st.integers(0, 1 << 32), st.integers(1, 9))


def received(w: Decoded, steps: Sequence[int] = (0, 0), kind: Kind = Kind.DELTA) -> Received:
    return Received(kind, ((0, w), (1, Dense(np.array(steps, np.int64)))), sequence=4)


def dense(values: Sequence[float]) -> Received:
    return received(Dense(np.array(values, np.float32)))


def guarded(text: str, bound: float | None = None) -> Guarded:
    return Guarded(read_defence(text), MANIFEST, MODEL, MODEL, bound)


def of_norm(norm: float) -> Received:
    return dense([norm] + [0.0] * 11)


def change_of(aggregator: Guarded) -> NDArray[np.float64]:
    model = aggregator.result()["w"].astype(np.float64)
    return (model - MODEL["w"].astype(np.float64)).reshape(-1)


def test_the_norm_of_a_sparse_change_is_that_of_the_same_dense_one() -> None:
    sparse = Sparse(np.array([1, 5, 11]), np.array([3.0, -4.0, 12.0], np.float32), 12)
    for one in (received(sparse), received(Dense(sparse.dense()))):
        assert norm_of(one, MANIFEST) == 13.0
        total = np.zeros(12)
        scaled(one, 0.5, MANIFEST).decoded[0][1].add_to(total, 4.0)
        np.testing.assert_array_equal(total, 2.0 * sparse.dense())
        np.testing.assert_array_equal(
            scaled(one, 0.5, MANIFEST).decoded[0][1].dense(), 0.5 * sparse.dense()
        )


def test_the_norm_of_the_largest_floats_is_finite() -> None:
    assert norm_of(dense([3.4e38] * 12), MANIFEST) == pytest.approx(3.4e38 * math.sqrt(12))


@pytest.mark.parametrize("value", [1e155, 1e300, sys.float_info.max])
def test_the_norm_of_doubles_whose_squares_overflow(value: float) -> None:
    update = received(Dense(np.array([value, -value / 2] + [0.0] * 10)))
    norm = min(math.hypot(value, value / 2), sys.float_info.max)
    assert norm_of(update, MANIFEST) == pytest.approx(norm, rel=1e-14)


@pytest.mark.parametrize("text", ["clip", "clip(zero=inf)", "clip+median", "examples+clip"])
@pytest.mark.parametrize("hostile", [1, 2])
def test_the_largest_doubles_neither_count_nor_end_a_run(text: str, hostile: int) -> None:
    guard = Guard(read_defence(text))
    for number in (1, 2, 3):
        aggregator = guard.begin(MANIFEST, MODEL, MODEL)
        for client in range(5):
            value = sys.float_info.max if client < hostile else 1.0
            aggregator.accumulate(received(Dense(np.full(12, value))), 1.0)
        done = guard.settle(number, range(5), aggregator)
        assert [each.rejected for each in done] == [client < hostile for client in range(5)]
        # As a checkpoint wants it.
        json.dumps(dict(guard.state().facts), allow_nan=False)


def test_counters_neither_count_in_a_norm_nor_are_scaled() -> None:
    update = received(Dense(np.zeros(12, np.float32)), (1 << 60, 5))
    assert norm_of(update, MANIFEST) == 0.0
    np.testing.assert_array_equal(scaled(update, 0.1, MANIFEST).decoded[1][1].dense(), [1 << 60, 5])


def test_a_model_becomes_the_change_that_led_to_it() -> None:
    trained = MODEL["w"].reshape(-1) + np.float32(0.5)
    change = as_change(received(Dense(trained), (8, 9), Kind.MODEL), MANIFEST, MODEL)
    assert change.kind is Kind.DELTA
    np.testing.assert_array_equal(change.decoded[0][1].dense(), np.full(12, 0.5))
    np.testing.assert_array_equal(change.decoded[1][1].dense(), [8, 9])


def test_a_model_too_far_away_for_a_change_is_refused() -> None:
    far: Arrays = {**MODEL, "w": np.full((3, 4), -3e38, np.float32)}
    update = received(Dense(np.full(12, 3e38, np.float32)), kind=Kind.MODEL)
    with pytest.raises(NonFiniteError, match="overflows"):
        as_change(update, MANIFEST, far)


@QUICK
@given(values=changes, first=st.integers(1, 100))
def test_without_anything_to_bound_a_defence_is_the_mean(
    values: list[list[float]], first: int
) -> None:
    weights = range(first, first + len(values))
    plain = StreamingMean(MANIFEST, MODEL, MODEL)
    bounded = guarded("examples(most=1e9)+clip(zero=inf)", bound=1e9)
    waiting = guarded("examples(times=1000)+clip", bound=1e9)
    for change, weight in zip(values, weights, strict=True):
        for aggregator in (plain, bounded, waiting):
            aggregator.accumulate(dense(change), weight)
    expected = plain.result()
    for name in MODEL:
        np.testing.assert_array_equal(bounded.result()[name], expected[name])
        np.testing.assert_array_equal(waiting.result()[name], expected[name])


@QUICK
@given(
    honest=st.lists(st.integers(1, 500), min_size=3, max_size=9),
    claim=st.floats(1, 1e15),
    times=st.floats(1, 10),
)
def test_a_forged_count_weighs_no_more_than_the_cap(
    honest: list[int], claim: float, times: float
) -> None:
    aggregator = guarded(f"examples(times={times!r})")
    for weight in honest:
        aggregator.accumulate(of_norm(0.0), weight)
    aggregator.accumulate(of_norm(1.0), claim)
    cap = times * statistics.median([*honest, claim])
    counted = [min(weight, cap) for weight in [*honest, claim]]
    # float32 models: the change is read off a difference of them.
    assert change_of(aggregator)[0] == pytest.approx(counted[-1] / sum(counted), abs=1e-6)
    treatments = aggregator.treatments(1, range(len(counted)))
    assert [t.counted for t in treatments] == pytest.approx(counted)
    assert treatments[-1].claimed == claim


def test_a_number_as_a_cap_needs_no_waiting() -> None:
    aggregator = guarded("examples(most=10)")
    aggregator.accumulate(of_norm(1.0), 1e15)
    aggregator.accumulate(of_norm(0.0), 10)
    assert change_of(aggregator)[0] == pytest.approx(0.5, abs=1e-6)


@QUICK
@given(norms=st.lists(st.floats(0.01, 9.9), min_size=1, max_size=12))
def test_no_change_is_longer_than_the_bound_and_shorter_ones_stay(norms: list[float]) -> None:
    aggregator = guarded("clip", bound=1.0)
    for norm in norms:
        aggregator.accumulate(of_norm(norm), 1.0)
    expected = statistics.fmean(min(norm, 1.0) for norm in norms)
    assert change_of(aggregator)[0] == pytest.approx(expected, abs=1e-6)
    factors = [t.factor for t in aggregator.treatments(1, range(len(norms)))]
    assert factors == pytest.approx([min(1.0, 1.0 / norm) for norm in norms], rel=1e-6)


def test_what_is_absurdly_long_counts_for_nothing_and_weighs_nothing() -> None:
    aggregator = guarded("examples(most=1e6)+clip(zero=10)", bound=1.0)
    aggregator.accumulate(of_norm(10.1), 1e6)
    aggregator.accumulate(of_norm(0.5), 1.0)
    assert change_of(aggregator)[0] == 0.5
    rejected, applied = aggregator.treatments(3, [7, 8])
    assert (rejected.node, rejected.factor, rejected.counted, rejected.rejected) == (7, 0, 0, True)
    assert rejected.mass == pytest.approx(10.1)
    assert (rejected.verdict.outcome, applied.verdict) == (Outcome.REJECTED, APPLIED)
    assert (applied.node, applied.factor, applied.counted, applied.round) == (8, 1, 1, 3)


def test_a_round_in_which_everybody_is_absurd_has_no_result() -> None:
    aggregator = guarded("clip", bound=1e-9)
    aggregator.accumulate(of_norm(1.0), 1.0)
    with pytest.raises(ZeroDivisionError):
        aggregator.result()


def test_the_first_bound_is_the_quantile_of_the_first_round() -> None:
    aggregator = guarded("clip(quantile=0.5)")
    for norm in (1.0, 2.0, 3.0, 4.0, 1e30):
        aggregator.accumulate(of_norm(norm), 1.0)
    aggregator.result()
    assert aggregator.bound == 3.0
    treatments = aggregator.treatments(1, range(5))
    assert [t.factor for t in treatments] == pytest.approx([1, 1, 1, 0.75, 0])
    assert [t.mass for t in treatments] == pytest.approx([0, 0, 0, 4, 1e30])
    assert treatments[3].verdict.lost == pytest.approx(0.25)


@pytest.mark.parametrize("quantile", [0.2, 0.5, 0.8])
def test_the_bound_follows_the_quantile_up_and_down(quantile: float) -> None:
    clip, rng = Clip(quantile=quantile), np.random.default_rng(0)
    for scale in (1.0, 50.0, 0.02):
        bound = 1.0
        for _ in range(200):
            bound = clip.follow(bound, list(scale * rng.lognormal(size=20)))
        right = scale * math.exp(statistics.NormalDist().inv_cdf(quantile))
        assert 0.5 < bound / right < 2.0


def test_one_step_of_the_bound_is_the_papers() -> None:
    # Three of four within: b = 0.75, one quarter above the quantile.
    moved = Clip(quantile=0.5, rate=0.2).follow(2.0, [1.0, 1.5, 2.0, 9.0])
    assert moved == pytest.approx(2.0 * math.exp(-0.2 * 0.25))
    assert Clip().follow(2.0, []) == 2.0
    assert Clip().follow(0.0, [1.0, 3.0, 5.0]) == 3.0


@QUICK
@given(values=changes, share=st.floats(0.01, 0.49))
def test_a_trimmed_mean_is_the_one_by_hand(values: list[list[float]], share: float) -> None:
    table = np.array(values, np.float32)
    cut = min(math.ceil(share * len(table) - 1e-9), (len(table) - 1) // 2)
    kept = np.sort(table, axis=0)[cut : len(table) - cut].astype(np.float64)
    check_centre(Trimmed(share), table, kept.mean(axis=0))


@QUICK
@given(values=changes)
def test_a_median_is_numpys(values: list[list[float]]) -> None:
    table = np.array(values, np.float32)
    check_centre(Median(), table, np.median(table.astype(np.float64), axis=0))


def check_centre(
    rule: Trimmed | Median, table: NDArray[np.float32], centre: NDArray[np.float64]
) -> None:
    aggregator = TrimmedMean(MANIFEST, MODEL, rule)
    for number, row in enumerate(table):
        aggregator.accumulate(received(Dense(row), (number, 5)), 10.0**number)
    result = aggregator.result()
    expected = (MODEL["w"].reshape(-1).astype(np.float64) + centre).astype(np.float32)
    np.testing.assert_array_equal(result["w"].reshape(-1), expected)
    steps = np.rint((len(table) - 1) / 2)
    np.testing.assert_array_equal(result["steps"], [steps, 5])
    assert all(0 <= share <= 1 for share in aggregator.shares)


@QUICK
@given(
    honest=st.lists(st.floats(-1, 1, width=32), min_size=4, max_size=12),
    lie=st.floats(-(2.0**127), 2.0**127, width=32),
)
def test_a_fifth_of_liars_cannot_move_a_centre_out_of_what_honest_clients_say(
    honest: list[float], lie: float
) -> None:
    # Yin et al.: with at most a share of b liars, every kept value is between two honest ones.
    liars = len(honest) // 4
    for text in ("trimmed(share=0.2)", "median"):
        aggregator = guarded(text)
        for value in [*honest, *[lie] * liars]:
            aggregator.accumulate(of_norm(value), 1.0)
        moved = change_of(aggregator)[0]
        assert min(honest) - 1e-6 <= moved <= max(honest) + 1e-6


def test_how_much_of_a_client_was_trimmed_is_told() -> None:
    aggregator = guarded("trimmed(share=0.2)")
    for scale in (1.0, 1.1, 0.9, 1.2, -30.0):
        aggregator.accumulate(received(Dense(np.full(12, scale, np.float32)), (1, 1)), 1.0)
    aggregator.result()
    shares = [t.share for t in aggregator.treatments(1, range(5))]
    # 12 of 14 values are the tensor's; the two counters are the same for everybody.
    assert shares == pytest.approx([1, 1, 1, 2 / 14, 2 / 14])


def test_blocks_are_read_across_their_borders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowerpress.server.defences.robust._BLOCK", 15)
    table = np.random.default_rng(0).standard_normal((3, 12)).astype(np.float32)
    check_centre(Median(), table, np.median(table.astype(np.float64), axis=0))


@QUICK
@given(values=changes, sparse=st.integers(0, 511), start=st.integers(0, 12), data=st.data())
def test_a_spool_gives_back_what_was_put_in(
    values: list[list[float]], sparse: int, start: int, data: st.DataObject
) -> None:
    spool, put = Spool(), []
    for number, row in enumerate(values):
        whole = np.array(row, np.float32)
        where = np.flatnonzero(whole)
        one = Sparse(where, whole[where], 12) if sparse >> number & 1 else Dense(whole)
        put.append(whole)
        spool.append(received(one, (1, 2)))
    stop = data.draw(st.integers(start, 12))
    np.testing.assert_array_equal(spool.block(0, start, stop), np.array(put)[:, start:stop])
    for update, whole in zip(spool, put, strict=True):
        np.testing.assert_array_equal(update.decoded[0][1].dense(), whole)
        np.testing.assert_array_equal(update.decoded[1][1].dense(), [1, 2])
    spool.close()


def test_a_guard_goes_on_from_its_state() -> None:
    def play(guard: Guard, rounds: range) -> None:
        for number in rounds:
            aggregator = guard.begin(MANIFEST, MODEL, MODEL)
            for client in range(3):
                aggregator.accumulate(of_norm(1.0 + number * client), 1.0)
            guard.settle(number, range(3), aggregator)

    whole, half, rest = (Guard(Defence(clip=Clip())) for _ in range(3))
    play(whole, range(6))
    play(half, range(3))
    rest.restore(half.state())
    play(rest, range(3, 6))
    assert rest.state() == whole.state()
    assert rest.treatments == whole.treatments


def test_defences_are_written_as_text() -> None:
    assert read_defence("clip(quantile=0.3) + trimmed(share=0.1)") == Defence(
        clip=Clip(quantile=0.3), centre=Trimmed(0.1)
    )
    assert read_defence("examples(most=1e+3)+clip") == Defence(Examples(most=1000.0), Clip())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("clipp", "did you mean 'clip'"),
        ("clip+", "not of the form"),
        ("clip(quantil=0.5)", "did you mean 'quantile'"),
        ("clip(quantile=1)", "between 0 and 1"),
        ("clip(quantile=nan)", "between 0 and 1"),
        ("clip(rate=0)", "above 0"),
        ("clip(zero=0.5)", "at least 1"),
        ("trimmed(share=0.5)", "below 0.5"),
        ("trimmed(share=0)", "above 0"),
        ("examples(times=0.5)", "at least 1"),
        ("examples(most=0)", "above 0"),
        ("examples(most=inf)", "above 0"),
        ("median+trimmed", "two parts that do the same"),
        ("clip+clip", "two parts that do the same"),
        ("examples+median", "leave it out"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_words(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read_defence(text)


def test_a_name_that_does_not_exist_is_named_so() -> None:
    with pytest.raises(UnknownNameError, match="unknown defence 'krum'"):
        read_defence("krum")


@pytest.mark.parametrize("codec", ["stc", "topk(density=0.05)"])
def test_medians_of_sparse_updates_are_refused(codec: str) -> None:
    for defence in ("median", "clip+trimmed"):
        with pytest.raises(ConfigError, match="dense uplink such as int8"):
            fitting(defence, FedAvg(), preset(codec), codec)
    assert fitting("examples+clip", FedAvg(), preset(codec), codec).clip


@pytest.mark.parametrize("codec", ["none", "int8", "fp16", "efsign"])
def test_medians_of_dense_updates_are_not(codec: str) -> None:
    assert fitting("median", FedAvg(), preset(codec), codec).centre
