"""Schedules: values worked out by hand, bounds whatever comes in, refusals that name the key."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowerpress.compression.errors import ConfigError, UnknownNameError
from flowerpress.compression.rates.schedule import KINDS, Schedule, accordion_is_gentle, cubic

_factors = st.floats(0.01, 100.0)

schedules = st.builds(
    Schedule,
    kind=st.sampled_from(KINDS),
    start=_factors,
    end=_factors,
    first=st.integers(1, 50),
    length=st.integers(0, 50),
    early=st.floats(1.0, 1.99),
    warmup=st.integers(0, 20),
    warmup_factor=_factors,
    accordion=st.booleans(),
    gentle_factor=_factors,
    threshold=st.floats(1e-6, 100.0),
)


def test_the_cubic_ramp_by_hand() -> None:
    # From 4 to 1 over 10 rounds from round 2: 1 + 3 (1 - (t - 2) / 10)^3.
    assert cubic(1, 4.0, 1.0, 2, 10) == 4.0
    assert cubic(2, 4.0, 1.0, 2, 10) == 4.0
    assert cubic(7, 4.0, 1.0, 2, 10) == 1.375  # 1 + 3/8
    assert cubic(4, 4.0, 1.0, 2, 10) == pytest.approx(2.536)  # 1 + 3 * .512
    assert cubic(12, 4.0, 1.0, 2, 10) == 1.0
    assert cubic(99, 4.0, 1.0, 2, 10) == 1.0
    assert cubic(2, 0.5, 2.5, 0, 4) == 2.25  # rising, too: 2.5 - 2/8
    with pytest.raises(ConfigError, match="at least 1 round"):
        cubic(1, 4.0, 1.0, 1, 0)


def test_phase_by_hand() -> None:
    schedule = Schedule(kind="phase", early=1.5)
    assert [schedule.factor(t, 5) for t in range(1, 6)] == [1.5, 1.25, 1.0, 0.75, 0.5]
    assert [schedule.factor(t, 2) for t in (1, 2)] == [1.5, 0.5]
    assert schedule.factor(1, 1) == 1.0


def test_warm_up_by_hand() -> None:
    schedule = Schedule(warmup=2, warmup_factor=16.0)
    assert [schedule.factor(t, 9) for t in (1, 2, 3, 9)] == [16.0, 4.0, 1.0, 1.0]


def test_accordion_by_hand() -> None:
    assert accordion_is_gentle([])
    assert accordion_is_gentle([3.0])
    assert accordion_is_gentle([2.0, 3.0])  # up by exactly half
    assert accordion_is_gentle([2.0, 1.0])  # down by exactly half
    assert not accordion_is_gentle([2.0, 2.99])
    assert not accordion_is_gentle([2.0, 1.01])
    assert not accordion_is_gentle([0.0, 0.0])
    assert accordion_is_gentle([0.0, 1e-9])
    assert accordion_is_gentle([1.0, math.nan])
    assert accordion_is_gentle([math.inf, 1.0])
    assert not accordion_is_gentle([9.0, 2.0, 2.0])  # what was before the last two does not count
    schedule = Schedule(accordion=True, gentle_factor=3.0)
    assert [schedule.factor(5, 9, norms) for norms in ([1.0, 2.0], [1.0, 1.1])] == [3.0, 1.0]


@given(st.floats(1.0, 1.99), st.integers(1, 400))
def test_phase_sends_as_much_as_constant(early: float, rounds: int) -> None:
    factors = [Schedule(kind="phase", early=early).factor(t, rounds) for t in range(1, rounds + 1)]
    assert math.fsum(factors) / rounds == pytest.approx(1.0, abs=1e-12)
    assert factors == sorted(factors, reverse=True)


@given(
    schedules,
    st.integers(-5, 500),
    st.integers(1, 300),
    st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=4),
)
def test_factors_are_finite_and_within_their_bounds(
    schedule: Schedule, at: int, rounds: int, norms: list[float]
) -> None:
    low, high = schedule.bounds
    assert 1e-6 <= low <= high <= 1e6
    assert low <= schedule.factor(at, rounds, norms) <= high


@given(schedules)
def test_a_table_of_all_fields_reads_back(schedule: Schedule) -> None:
    used: dict[str, Any] = {"kind": schedule.kind, "accordion": schedule.accordion}
    used["warmup"] = schedule.warmup
    if schedule.kind == "cubic":
        used |= {k: getattr(schedule, k) for k in ("start", "end", "first", "length")}
    if schedule.kind == "phase":
        used["early"] = schedule.early
    if schedule.warmup:
        used["warmup_factor"] = schedule.warmup_factor
    if schedule.accordion:
        used |= {k: getattr(schedule, k) for k in ("gentle_factor", "threshold")}
    read = Schedule.parse(used)
    assert all(getattr(read, key) == value for key, value in used.items())
    assert read.factor(3, 7, [1.0, 1.2]) == schedule.factor(3, 7, [1.0, 1.2])


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"kind": "cubik"}, r"unknown kind of schedule 'cubik'; did you mean 'cubic'"),
        ({"kind": 3}, r"unknown kind of schedule '3'"),
        ({"warmupp": 3}, r"unknown key of \[schedule\] 'warmupp'; did you mean 'warmup'"),
        ({"kind": "cubic", "start": 0}, r"start of the schedule is 0"),
        ({"kind": "cubic", "start": math.nan}, r"start of the schedule is nan"),
        ({"kind": "cubic", "end": "1"}, r"end of the schedule is '1'"),
        ({"kind": "cubic", "first": 1.0}, r"first of the schedule is 1.0; it must be an integer"),
        ({"kind": "cubic", "length": -1}, r"length of the schedule is -1"),
        ({"kind": "phase", "early": 2}, r"early of the schedule is 2; .* from 1 to 1.99"),
        ({"warmup": True}, r"warmup of the schedule is True"),
        ({"accordion": 1}, r"accordion of the schedule is 1; it must be true or false"),
        ({"accordion": True, "threshold": 0}, r"threshold of the schedule is 0"),
        ({"early": 1.2}, r"early is only used with kind = 'phase'"),
        ({"kind": "phase", "start": 2.0}, r"start is only used with kind = 'cubic'"),
        ({"warmup_factor": 2.0}, r"warmup_factor is only used with warmup above 0"),
        ({"threshold": 0.5}, r"threshold is only used with accordion = true"),
        ([], r"must be a table"),
    ],
)
def test_refusals_name_the_key(table: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Schedule.parse(table)


def test_a_run_without_rounds_is_refused() -> None:
    assert issubclass(UnknownNameError, ConfigError)
    with pytest.raises(ConfigError, match="at least 1 round"):
        Schedule().factor(1, 0)
