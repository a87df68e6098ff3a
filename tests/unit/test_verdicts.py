"""What became of updates: told once it is certain, counted, and kept over a restart."""

from __future__ import annotations

import json
import math
import sys

import pytest
from flwr.app import ConfigRecord, RecordDict

from flowerpress.compression import ConfigError, FormatError, Limits
from flowerpress.protos import (
    APPLIED,
    RECORD,
    UNDECIDED,
    Instruction,
    Outcome,
    Receipt,
    Status,
    Verdict,
)
from flowerpress.protos import records_pb2 as pb
from flowerpress.server.defences import Guard, Treatment, read_defence
from flowerpress.server.intake import Intake
from flowerpress.server.left_out import LeftOut
from flowerpress.server.meter import Meter
from flowerpress.server.verdicts import Account, Verdicts

CLIPPED = Verdict(Outcome.CLIPPED, 0.25)
REJECTED = Verdict(Outcome.REJECTED, reason="farther from the others than any of them")


def read(message: pb.Instruction | pb.Receipt) -> RecordDict:
    return RecordDict({RECORD: ConfigRecord({"flowerpress/1": message.SerializeToString()})})


def intake() -> Intake:
    return Intake(1, Limits())


def test_a_verdict_is_given_when_the_model_was_taken() -> None:
    desk = intake()
    desk.begin()
    desk.stage(7, 3)
    desk.stage(8, 5, CLIPPED, mass=8.0)
    desk.stage(9, 2, REJECTED, mass=4.0)
    assert [desk.verdicts.of(client) for client in (7, 8, 9)] == [UNDECIDED] * 3
    desk.commit()
    assert [desk.verdicts.of(client) for client in (7, 8, 9)] == [APPLIED, CLIPPED, REJECTED]
    # A rejected update is settled: the client need not send it again.
    assert desk.watermarks == {7: 3, 8: 5, 9: 2}
    accounts = desk.verdicts.accounts
    assert (accounts[7].applied, accounts[7].sequence, accounts[7].dropped) == (1, 3, 0.0)
    assert (accounts[8].applied, accounts[8].dropped, accounts[8].dropped_updates) == (1, 6.0, 1)
    assert (accounts[9].applied, accounts[9].dropped, accounts[9].dropped_updates) == (0, 4.0, 1)
    assert desk.verdicts.dropped == 10.0


def test_a_round_that_came_to_nothing_settles_nothing() -> None:
    desk = intake()
    desk.begin()
    desk.stage(7, 3, CLIPPED, mass=8.0)
    desk.discard()
    assert desk.watermarks == {}
    assert desk.verdicts.of(7) == Verdict(Outcome.NOT_COUNTED, reason="the round came to nothing")
    assert desk.verdicts.dropped == 0.0


@pytest.mark.parametrize("verdict", [CLIPPED, REJECTED])
def test_a_client_that_was_away_still_hears_what_became_of_its_last_update(
    verdict: Verdict,
) -> None:
    desk = intake()
    desk.begin()
    desk.stage(7, 3, verdict, mass=8.0)
    desk.commit()
    desk.verdicts.not_counted(7, "no reply before the deadline")
    assert (desk.watermarks[7], desk.verdicts.of(7)) == (3, verdict)
    desk.begin()
    desk.stage(7, 4)
    desk.commit()
    assert (desk.watermarks[7], desk.verdicts.of(7)) == (4, APPLIED)


def test_orphans_are_what_was_given_up_and_what_absent_clients_owe() -> None:
    verdicts = Verdicts()
    verdicts.note(7, Receipt(Status.OK, 1, owed=2.0, orphaned=1.0), 1)
    verdicts.note(8, Receipt(Status.OK, 1, owed=4.0), 1)
    verdicts.note(8, Receipt(Status.OK, 2, owed=8.0), 2)
    assert verdicts.orphaned([7, 8]) == 1.0
    assert verdicts.orphaned([7]) == 9.0
    assert verdicts.orphaned([]) == 11.0
    assert verdicts.accounts[8].last_round == 2
    verdicts.give(7, 1, CLIPPED, mass=8.0)
    assert verdicts.summary([7]) == (
        "1 updates in the model; mass 6 dropped on purpose, 9 orphaned, 10 in residuals"
    )


def test_books_survive_as_json() -> None:
    verdicts = Verdicts()
    verdicts.give(2**63, 4, CLIPPED, mass=3.0)
    verdicts.not_counted(5, "late")
    verdicts.note(5, Receipt(Status.OK, 1, owed=0.1), 3)
    again = Verdicts()
    again.restore(json.loads(json.dumps(verdicts.facts())))
    assert again.accounts == verdicts.accounts
    assert again.accounts[5] == Account(owed=0.1, last_round=3)
    assert [again.of(client) for client in (2**63, 5, 6)] == [
        CLIPPED,
        Verdict(Outcome.NOT_COUNTED, reason="late"),
        UNDECIDED,
    ]


@pytest.mark.parametrize("verdict", [UNDECIDED, APPLIED, CLIPPED, REJECTED])
def test_which_verdicts_settle_and_what_they_cost(verdict: Verdict) -> None:
    assert verdict.settles == (verdict is not UNDECIDED)
    assert verdict.lost == {CLIPPED: 0.75, REJECTED: 1.0}.get(verdict, 0.0)


@pytest.mark.parametrize("factor", [-0.1, 1.1, math.nan, math.inf])
def test_nobody_clips_by_such_a_factor(factor: float) -> None:
    with pytest.raises(ConfigError, match="cannot be clipped by"):
        Verdict(Outcome.CLIPPED, factor)
    hostile = pb.Instruction(outcome=pb.Instruction.CLIPPED, factor=factor)
    with pytest.raises(FormatError, match="factor"):
        Instruction.read(read(hostile))


def test_what_a_hostile_server_says_of_an_update() -> None:
    with pytest.raises(FormatError, match="outcome: unknown outcome 9"):
        Instruction.read(read(pb.Instruction(outcome=9)))  # type: ignore[arg-type]
    for decay in (-0.5, 1.5, math.nan):
        with pytest.raises(FormatError, match="decay"):
            Instruction.read(read(pb.Instruction(decay=decay)))
    told = Instruction.read(read(pb.Instruction(reason="r" * 5000)))
    assert told is not None
    assert len(told.verdict.reason) == 500
    assert (told.verdict.outcome, told.decay) == (Outcome.UNDECIDED, 1.0)


@pytest.mark.parametrize("field", ["owed", "orphaned", "dropped"])
@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_what_a_hostile_client_says_of_its_books(field: str, value: float) -> None:
    message = pb.Receipt(status=pb.Receipt.OK, **{field: value})  # type: ignore[arg-type]
    with pytest.raises(FormatError, match=f"receipt.{field}"):
        Receipt.read(read(message))


def test_sums_of_what_clients_say_stay_finite() -> None:
    verdicts = Verdicts()
    largest = sys.float_info.max
    for client in range(5):
        verdicts.note(client, Receipt(Status.OK, 1, owed=largest, orphaned=largest), 1)
        verdicts.give(client, 1, REJECTED, mass=math.inf)
    sums = verdicts.owed, verdicts.dropped, verdicts.orphaned([]), verdicts.orphaned(range(5))
    assert all(1e300 <= each < math.inf for each in sums)
    json.dumps(verdicts.facts(), allow_nan=False)


def test_what_grows_with_every_round_is_not_in_a_file_s_header() -> None:
    left_out, meter, guard = LeftOut(), Meter(), Guard(read_defence("clip"))

    def facts() -> list[int]:
        for number in range(1, 4):
            left_out.note(number, 7, "SomeError", "field" * 500, "\U0001f600" * 5000)
            meter.of(number).uplink.record(7, 100, 400, {"w": 90})
            guard.treatments.append(Treatment(number, 7, 1, 0.5, 1.0, 1.0, 2.0, 1.0))
        return [len(json.dumps(dict(each.state().facts))) for each in (left_out, meter, guard)]

    assert facts() == facts()
    # What a client can say about itself is bounded, too.
    assert max(len(r.message) + len(r.field) for r in left_out.rejections) <= 1000
    again, counted, treated = LeftOut(), Meter(), Guard(read_defence("clip"))
    again.restore(left_out.state())
    counted.restore(meter.state())
    treated.restore(guard.state())
    assert again.rejections == left_out.rejections
    assert counted.rounds == meter.rounds
    assert treated.treatments == guard.treatments
