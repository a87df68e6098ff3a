"""Whole runs on simulated links: the clock, who is late, and what becomes of late updates."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
from flwr.app import Context, Message, RecordDict

from flowerpress.simulations.app import make_client_app, make_server_app
from flowerpress.simulations.config import SimulationConfig
from flowerpress.simulations.engines import EngineError, run
from flowerpress.simulations.engines.grid import FIRST_NODE, server_identity
from flowerpress.simulations.engines.inline import InlineGrid
from flowerpress.simulations.record import RoundRecord, read_run

SLOW = 16_000.0


def _config(tmp_path: Path, **changes: object) -> SimulationConfig:
    base = {"clients": 4, "rounds": 4, "uplink": "stc", "out": tmp_path / "run"}
    return SimulationConfig.model_validate(base | changes)


@pytest.fixture
def slow_first(tmp_path: Path) -> str:
    """Return links on which client 0 has 16 kbit/s and the others 1 Mbit/s."""
    path = tmp_path / "links.json"
    path.write_text(f"[{SLOW}, 1e6, 1e6, 1e6]")
    return str(path)


def _facts(records: Iterable[RoundRecord]) -> list[tuple[object, ...]]:
    return [(r.accuracy, r.bytes_up, r.simulated_seconds, r.missed) for r in records]


def test_without_a_deadline_the_slowest_decides(tmp_path: Path, slow_first: str) -> None:
    sizes: list[int] = []

    class Listening(InlineGrid):
        """Notes what client 0 answers."""

        def _reply(self, message_id: str, patience: float | None) -> Message | None:
            asked = self._waiting[message_id].metadata
            reply = super()._reply(message_id, patience)
            if asked.dst_node_id == FIRST_NODE and asked.message_type == "train" and reply:
                sizes.append(len(reply.content.array_records["arrays"]["blob"].data))
            return reply

    config = _config(tmp_path, links=slow_first)
    with server_identity(1):
        grid = Listening(make_client_app(config), 4)
        make_server_app(config)(grid, Context(1, 1, {}, RecordDict(), {}))
    records = read_run(tmp_path / "run").records
    assert len(sizes) == 4
    assert records[0].simulated_seconds == 0.0
    # 16,000 bits a second are 2000 bytes a second; the downlink takes no time here.
    assert [r.simulated_seconds for r in records[1:]] == [
        pytest.approx(8 * size / SLOW) for size in sizes
    ]
    assert [r.missed for r in records] == [0] * 5
    # Links without a deadline change what is written, not what is computed.
    plain = read_run(run(_config(tmp_path, out=tmp_path / "plain"))).records
    assert [r.accuracy for r in plain] == [r.accuracy for r in records]
    assert [r.simulated_seconds for r in plain] == [None] * 5


def test_who_is_late_is_left_out_and_the_round_takes_the_deadline(
    tmp_path: Path, slow_first: str
) -> None:
    config = _config(tmp_path, links=slow_first, deadline=0.1)
    late = read_run(run(config))
    assert [r.missed for r in late.records] == [0, 1, 1, 1, 1]
    assert [r.simulated_seconds for r in late.records] == [0.0, 0.1, 0.1, 0.1, 0.1]
    for record in late.records[1:]:
        (left,) = record.left_out
        assert (left.client, left.error) == (0, "NoReply")
        assert left.message.startswith("missed the deadline of 0.1 s: its update would have arr")
    assert all(r.accuracy is not None for r in late.records)
    for record in read_run(
        run(_config(tmp_path, out=tmp_path / "b", links=slow_first, deadline=99.0))
    ).records[1:]:
        assert record.missed == 0
        assert 0 < (record.simulated_seconds or 0.0) < 99.0


def test_the_downlink_counts_and_so_do_latency_and_training(tmp_path: Path) -> None:
    path = tmp_path / "links.json"
    path.write_text('{"uplink": "1G", "downlink": ["100k", "1G", "1G", "1G"], "compute": 0.25}')
    records = read_run(run(_config(tmp_path, links=str(path), rounds=2))).records
    # Client 0 alone gets a quarter of what all of them are sent, at 12,500 bytes a second.
    assert [r.simulated_seconds for r in records[1:]] == [
        pytest.approx(0.25 + r.bytes_down / 4 / 12_500, rel=1e-3) for r in records[1:]
    ]


def test_every_engine_has_the_same_clock(tmp_path: Path, slow_first: str) -> None:
    config = _config(tmp_path, links=slow_first, deadline=0.1, rounds=3)
    one = read_run(run(config)).records
    two = read_run(run(config.model_copy(update={"workers": 2, "out": tmp_path / "w"}))).records
    assert _facts(one) == _facts(two)


def test_a_deadline_that_nobody_meets_ends_the_run_with_the_reason(tmp_path: Path) -> None:
    config = _config(tmp_path, links="same(rate=1k)", deadline=0.01)
    with pytest.raises(EngineError, match=r"all 4 clients .* missed the deadline of 0\.01 s"):
        run(config)


def test_budgets_from_links_let_everyone_be_in_time(tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    budget = 'default = "stc"\n[budget]\ndeadline = 0.4\nrate = 16_000\nmenu = ["stc"]\n'
    policy.write_text(budget)
    links = tmp_path / "links.json"
    links.write_text('{"uplink": [16e3, 64e3, 1e6, 1e6], "latency": 0.1}')
    config = _config(tmp_path, links=str(links), deadline=0.5, uplink=str(policy))
    records = read_run(run(config)).records
    assert [r.missed for r in records] == [0] * 5
    assert [len(r.left_out) for r in records] == [0] * 5
    # Before a client has told its rate, it is taken for the one that the policy names.
    slow, enough = int(0.4 * 16_000 / 8), records[1].raw_bytes_up // 4 // 16
    assert [r.target_bytes for r in records[:2]] == [None, (slow, slow)]
    for record in records[2:]:
        least, most = record.target_bytes or (0, 0)
        # The fast ones have time for more than is of any use: two bits a parameter, and headers.
        assert least == slow
        assert enough <= most < enough + 500 < 0.4 * 1e6 / 8
    assert all(
        r.simulated_seconds is not None and 0.3 < r.simulated_seconds <= 0.5 for r in records[1:]
    )
    # One plan for all; what differs is how hard it is dialled.
    assert [r.plan is not None for r in records] == [False, True, False, False, False]
    assert set((records[1].plan or {}).values()) == {"stc"}
    # The same with one budget that is the mean of theirs: the slow ones never get through.
    mean = int(sum(0.4 * rate / 8 for rate in (16e3, 64e3, 1e6, 1e6)) / 4)
    policy.write_text(f'default = "stc"\n[budget]\ntarget_bytes = {mean}\nmenu = ["stc"]\n')
    late = read_run(run(config.model_copy(update={"out": tmp_path / "uniform"}))).records
    assert [r.missed for r in late[1:]] == [2] * 4
    assert {left.client for left in late[4].left_out} == {0, 1}
    assert [r.target_bytes for r in late[1:]] == [(mean, mean)] * 4
