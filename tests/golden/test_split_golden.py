"""Messages of split exchanges that were written once and must be read forever."""

from __future__ import annotations

import numpy as np
import pytest

from flowerpress.compression.errors import ChecksumError, WireError
from flowerpress.protos.split import (
    HELLO,
    Code,
    Kind,
    SplitLimits,
    SplitMessage,
    pack_labels,
    unpack_labels,
    unpack_split,
)

KEY = bytes(range(16))
LABELS = np.array([4, 0, 3])
WRITTEN = {
    "53b882448ff894100801100418032188776655443322112963000000000000003205746f6b656e480150025a08"
    "0000000000000000b80180808008c20106737461676531cd0100007042": (
        HELLO,
        SplitMessage(
            Kind.OPEN,
            step=4,
            round=3,
            run=0x1122334455667788,
            client=99,
            token=b"token",
            restart=True,
            tables_version=2,
            tables_digest=bytes(8),
            largest=1 << 24,
            cut="stage1",
            patience=60.0,
        ),
    ),
    "ff9a8cab2d7ebf71080210043a10000102030405060708090a0b0c0d0e0f420776616e696c6c616a046e6f6e65"
    "7215696e74382873746f636861737469633d7472756529b80180808008c20106737461676531cd0100009643": (
        HELLO,
        SplitMessage(
            Kind.ACK,
            step=4,
            session=KEY,
            mode="vanilla",
            features="none",
            gradients="int8(stochastic=true)",
            largest=1 << 24,
            cut="stage1",
            patience=300.0,
        ),
    ),
    "0fa3e2f0ca2464180803100550025a0864696765737464697a0203028201030102038a0101039001059a0102"
    "c400": (
        KEY,
        SplitMessage(
            Kind.FEATURES,
            step=5,
            shape=(3, 2),
            payload=b"\x01\x02\x03",
            tables_version=2,
            tables_digest=b"digestdi",
            label_shape=(3,),
            classes=5,
            labels=pack_labels(LABELS, 5),
        ),
    ),
    "92a55496a6fea99d080410057a02030282010109a5010000403f": (
        KEY,
        SplitMessage(Kind.GRADIENT, step=5, shape=(3, 2), payload=b"\x09", loss=0.75),
    ),
    "9a08c26ae92e314308091006a80105b201036f6c64": (
        KEY,
        SplitMessage(Kind.ERROR, step=6, code=int(Code.STALE_TABLES), text="old"),
    ),
}


@pytest.mark.parametrize("written", WRITTEN, ids=lambda text: WRITTEN[text][1].kind.name)
def test_messages_that_were_written_are_read(written: str) -> None:
    key, message = WRITTEN[written]
    assert unpack_split(bytes.fromhex(written), key, SplitLimits()) == message
    with pytest.raises(ChecksumError):
        unpack_split(bytes.fromhex(written), b"another key", SplitLimits())


@pytest.mark.parametrize("written", WRITTEN, ids=lambda text: WRITTEN[text][1].kind.name)
def test_every_bit_and_every_byte_matters(written: str) -> None:
    key, _ = WRITTEN[written]
    data = bytes.fromhex(written)
    flipped = (
        data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]
        for at in range(len(data))
        for bit in range(8)
    )
    cut = (data[:length] for length in range(len(data)))
    for damaged in (*flipped, *cut, data + b"\0"):
        with pytest.raises(WireError):
            unpack_split(damaged, key, SplitLimits())


def test_labels_that_were_written_are_read() -> None:
    assert unpack_labels(b"\xc4\x00", (3,), 5).tolist() == LABELS.tolist()
