"""Instructions and receipts in Flower's messages, and the blob beside them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from flowerpress.compression import FormatError, LimitError, WireError
from flowerpress.protos import (
    RECORD,
    Instruction,
    MessageCarrier,
    Outcome,
    Receipt,
    Status,
    Verdict,
)
from flowerpress.protos import records_pb2 as pb
from flowerpress.protos.carrier import BLOB_STYPE

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
    plan_digest=bytes(8),
    plan=b"plan",
    target_bytes=2**40,
    settings=("int8", "topk(density=0.1)"),
    tensors=(0, 7),
    split=2**33,
    deadline=12.5,
    verdict=Verdict(Outcome.CLIPPED, 0.5, "longer than most"),
    decay=0.9,
)
RECEIPT = Receipt(
    Status.REFUSED,
    2,
    b"digest",
    "EncodeError",
    "w",
    "tensor 'w': NaN",
    bytes(8),
    64e3,
    b"points",
    owed=0.1,
    orphaned=2.0,
    dropped=1e300,
)


def holding(**fields: Any) -> RecordDict:
    """Return a message with these fields in the record of flowerpress."""
    return RecordDict({RECORD: ConfigRecord(fields)})


def test_records_survive() -> None:
    content = RecordDict()
    INSTRUCTION.write(content)
    assert Instruction.read(content) == INSTRUCTION
    for status in Status:
        content = RecordDict()
        receipt = replace(RECEIPT, status=status)
        receipt.write(content)
        assert Receipt.read(content) == receipt
        assert Receipt.read(content).status is status


def test_a_side_without_flowerpress() -> None:
    assert Instruction.read(RecordDict()) is None
    with pytest.raises(FormatError, match="receipt: missing: does the ClientApp have the press"):
        Receipt.read(RecordDict())


@pytest.mark.parametrize(
    ("record", "error", "message"),
    [
        ({}, FormatError, "the other side speaks another version"),
        ({"flowerpress/2": b""}, FormatError, "the other side speaks another version"),
        ({"flowerpress/1": "text"}, FormatError, "the other side speaks another version"),
        ({"flowerpress/1": b"\xff\xff"}, FormatError, "not a protobuf message"),
        ({"flowerpress/1": bytes(1_100_000)}, LimitError, "1100000 bytes, at most 1048576"),
    ],
)
@pytest.mark.parametrize("kind", [Instruction, Receipt])
def test_records_that_nobody_writes(
    kind: type[Instruction] | type[Receipt],
    record: dict[str, Any],
    error: type[WireError],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        kind.read(holding(**record))


def test_receipts_of_an_unknown_status() -> None:
    for status in (0, 4, -1):
        text = pb.Receipt(status=status).SerializeToString()  # type: ignore[arg-type]
        with pytest.raises(FormatError, match=f"receipt.status: unknown status {status}"):
            Receipt.read(holding(**{"flowerpress/1": text}))


def test_long_complaints_are_cut() -> None:
    content = RecordDict()
    # A message that names all of 50,000 missing tensors must not hide behind its own size.
    replace(RECEIPT, error="e" * 2000, field="f" * 2000, message="m" * 600_000).write(content)
    receipt = Receipt.read(content)
    assert {len(receipt.error), len(receipt.field), len(receipt.message)} == {500}
    longer = pb.Receipt(status=pb.Receipt.REFUSED, message="m" * 2000).SerializeToString()
    assert len(Receipt.read(holding(**{"flowerpress/1": longer})).message) == 500


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
