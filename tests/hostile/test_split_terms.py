"""Terms of a split round that no server writes are refused, by the name of the field."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from flwr.app import ConfigRecord, RecordDict

from flowerpress.compression.errors import FormatError
from flowerpress.protos.split_terms import SPLIT_RECORD, SplitTerms

TERMS = SplitTerms(
    address="192.0.2.7:7070",
    run=bytes(range(8)),
    round=3,
    client=2**64 - 1,
    token=b"token",
    certificate=b"PEM",
    patience=60.0,
    seed=2**63,
)


def content(**changed: Any) -> RecordDict:
    """Return a message's content with the terms; None removes a field."""
    made = RecordDict()
    TERMS.write(made)
    values = {**made.config_records[SPLIT_RECORD], **changed}
    made[SPLIT_RECORD] = ConfigRecord({k: v for k, v in values.items() if v is not None})
    return made


def test_terms_are_read_as_they_were_written() -> None:
    assert SplitTerms.read(content()) == TERMS
    assert SplitTerms.read(RecordDict()) is None
    # What a newer server says beside them is not ours to judge.
    assert SplitTerms.read(content(more=1)) == TERMS


@pytest.mark.parametrize("name", list(vars(TERMS)))
def test_a_field_that_is_missing_or_of_another_type_is_named(name: str) -> None:
    for value in (None, [1], "text", b"bytes", 1, True, 1.5):
        if type(value) is type(content().config_records[SPLIT_RECORD][name]):
            continue
        with pytest.raises(FormatError, match=f"{SPLIT_RECORD}.{name}"):
            SplitTerms.read(content(**{name: value}))


@pytest.mark.parametrize(
    "changed",
    [
        {"round": -1},
        {"patience": 0.0},
        {"patience": -1.0},
        {"patience": math.nan},
        {"patience": math.inf},
        {"address": "x" * 513},
        {"token": bytes(65)},
        {"certificate": bytes(1 << 17)},
        {"run": bytes(9)},
        {"client": bytes(9)},
        {"seed": bytes(9)},
    ],
    ids=str,
)
def test_a_value_that_no_server_sends_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(FormatError, match=SPLIT_RECORD):
        SplitTerms.read(content(**changed))


def test_whatever_stands_there_ends_in_terms_or_a_refusal() -> None:
    rng = random.Random(0)
    values = [0, -1, 2**62, 0.0, math.nan, "", "a" * 600, b"", bytes(70), [b""], [1.0], True]
    ends = {True: 0, False: 0}
    for _ in range(2000):
        changed = {
            name: rng.choice(values) for name in rng.sample(list(vars(TERMS)), rng.randint(1, 2))
        }
        try:
            read = SplitTerms.read(content(**changed))
        except FormatError:
            ends[False] += 1
            continue
        ends[True] += 1
        assert read is not None
        assert read.patience > 0
        assert 0 <= read.client < 2**64
    assert min(ends.values()) > 20
