"""Five hundred rounds with ten client processes over the exchange: nothing grows, nothing is lost.

    pytest -m slow tests/soak

The same by real SuperLink and SuperNodes, which start a process for each message and take hours:
``python benchmarks/soak.py --kind deployment``.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.soak import Soak, soak
from flowerpress.simulations.record import read_run


@pytest.mark.slow
def test_memory_is_flat_on_both_sides_and_every_update_counts(tmp_path: Path) -> None:
    found = soak("processes", 500, 10, tmp_path)
    assert found.lost == 0
    assert min(found.server) > 0
    assert min(found.devices) > 0
    assert found.growth(found.server) < 0.05
    assert found.growth(found.devices) < 0.05
    run = read_run(tmp_path / "run")
    assert [record.clients for record in run.records[1:]] == [10] * 500


def test_growth_is_what_the_last_fifth_has_more_than_the_second() -> None:
    flat, leaking = (1000,) * 100, tuple(1000 + 10 * number for number in range(100))
    found = Soak("processes", 99, 1, 0, flat, leaking)
    assert found.growth(flat) == 0
    # Medians at rounds 29.5 and 89.5.
    assert found.growth(leaking) == pytest.approx((1895 - 1295) / 1295)
