"""Instructions and receipts in Flower's messages, and the blob beside them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from flowerpress.compression import FormatError, LimitError
from flowerpress.protos import RECORD, Instruction, MessageCarrier, Receipt, Status
from flowerpress.protos.carrier import BLOB_STYPE
from flowerpress.protos.records import MAX_TEXT

INSTRUCTION = Instruction(
    run=2**64 - 1,
    round=3,
    client=2**63,
    version=5,
    held=4,
    digest=bytes(range(16)),
    watermark=9,
    arrays="arrays",
    uplink="stc(density=0.01)",
    carrier="message",
    seed=2**62,
)
RECEIPT = Receipt(Status.REFUSED, 2, b"digest", "EncodeError", "w", "tensor 'w': NaN")


def instruct(**changes: Any) -> RecordDict:
    content = RecordDict()
    INSTRUCTION.write(content)
    record = content.config_records[RECORD]
    for name, value in changes.items():
        if value is None:
            del record[name]
        else:
            record[name] = value
    return content


def test_records_survive() -> None:
    assert Instruction.read(instruct()) == INSTRUCTION
    content = RecordDict()
    RECEIPT.write(content)
    assert Receipt.read(content) == RECEIPT


def test_a_server_without_instructions() -> None:
    assert Instruction.read(RecordDict()) is None
    with pytest.raises(FormatError, match=r"receipt: missing: does the ClientApp have the press"):
        Receipt.read(RecordDict())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"protocol": 2}, "protocol: the server speaks another version"),
        ({"protocol": None}, "protocol: missing, or not int"),
        ({"round": "3"}, "round: missing, or not int"),
        ({"round": True}, "round: missing, or not int"),
        ({"uplink": b"stc"}, "uplink: missing, or not str"),
        ({"digest": "text"}, "digest: missing, or not bytes"),
        ({"run": b"1234567"}, "run: 7 bytes; an identity has 8"),
        ({"client": bytes(900)}, "client: 900 bytes"),
        ({"version": -1}, "version: -1 is negative"),
        ({"held": -1}, "held: -1 is negative"),
        ({"round": -1}, "round: -1 is negative"),
        ({"watermark": -2}, "watermark: -2 is negative"),
        ({"seed": -1}, "seed: -1 is negative"),
    ],
)
def test_instructions_that_no_server_writes(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(FormatError, match=message):
        Instruction.read(instruct(**changes))


def test_receipts_that_no_client_writes() -> None:
    for name, value, message in (
        ("status", "fine", "receipt.status: unknown status 'fine'"),
        ("status", 0, "status: missing, or not str"),
        ("version", -4, "version: -4 is negative"),
        ("error", 1.5, "error: missing, or not str"),
    ):
        content = RecordDict()
        RECEIPT.write(content)
        content.config_records[RECORD][name] = value
        with pytest.raises(FormatError, match=message):
            Receipt.read(content)


def test_long_complaints_are_cut() -> None:
    content = RecordDict()
    replace(RECEIPT, error="e" * 10**6, field="f" * 10**6, message="m" * 10**6).write(content)
    receipt = Receipt.read(content)
    assert {len(receipt.error), len(receipt.field), len(receipt.message)} == {MAX_TEXT}


def test_the_message_carrier() -> None:
    carrier = MessageCarrier()
    content = RecordDict()
    assert carrier.detach(content, "arrays", None) is None
    carrier.attach(content, "arrays", b"blob" * 10)
    assert carrier.detach(content, "arrays", 40) == b"blob" * 10
    assert carrier.detach(content, "arrays", None) == b"blob" * 10
    with pytest.raises(LimitError, match="arrays: 40 bytes, at most 39 are accepted"):
        carrier.detach(content, "arrays", 39)


@pytest.mark.parametrize(
    "record",
    [
        ArrayRecord({"w": Array(np.zeros(3))}),
        ArrayRecord({"blob": Array(np.zeros(3))}),
        ArrayRecord(
            {n: Array("uint8", (1,), BLOB_STYPE, b"x") for n in ("blob", "more")}
        ),
        ArrayRecord(),
    ],
    ids=["a model", "a plain array", "two", "none"],
)  # fmt: skip
def test_what_is_no_blob(record: ArrayRecord) -> None:
    with pytest.raises(FormatError, match="arrays where one flowerpress blob was expected"):
        MessageCarrier().detach(RecordDict({"arrays": record, "x": ConfigRecord()}), "arrays", None)
