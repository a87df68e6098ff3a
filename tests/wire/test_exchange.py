"""An exchange of blobs: there and back, once, resumed, refused in words."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from errno import ENOSPC
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from flowerpress.client.exchange import (
    ExchangeLink,
    ExchangeRefusedError,
    ExchangeUnreachableError,
)
from flowerpress.compression import FormatError, LimitError
from flowerpress.protos.exchange import BlobClaim, Code, ExchangeMessage, Kind
from flowerpress.server.exchange import ExchangeLimits, ExchangeService, streams
from flowerpress.server.exchange.refusals import Refusal
from flowerpress.server.exchange.spool import Room, Spool
from tests.wire.exchanging import LARGEST, chunk, exchanging, noise
from tests.wire.splitting import certificate

BLOB = noise(100_000)
CLAIM = BlobClaim.of(BLOB, 7)


@pytest.mark.parametrize("size", [1, 8191, 8192, 100_000, LARGEST])
def test_there_and_back(size: int) -> None:
    blob = noise(size)
    with exchanging() as served, served.link() as link:
        claim = link.upload(blob, 5)
        assert claim == BlobClaim.of(blob, 5)
        assert served.take(claim) == blob
        assert link.download(served.offer(blob)) == blob
        counted = served.service.traffic(1)[1]
    assert counted.up.by_kind == counted.down.by_kind == {"blob": size}
    # Framing of our own: what names the client once, and a few bytes for each chunk.
    for direction in (counted.up, counted.down):
        assert 0 < direction.message - size < 250 + 0.005 * size


def test_a_repeated_upload_arrives_once() -> None:
    with exchanging() as served, served.link() as link:
        claim = link.upload(BLOB, 7)
        assert link.upload(BLOB, 7) == claim
        assert served.take(claim) == BLOB
        assert link.upload(BLOB, 7) == claim
        assert served.service.traffic(1)[1].up.payload == len(BLOB)
        # It was taken, and is not there a second time.
        with pytest.raises(FormatError, match="did not arrive"):
            served.take(claim)


def test_an_upload_goes_on_where_it_was() -> None:
    with exchanging() as served:
        with served.raw() as first:
            assert first.ask(first.opening(Kind.UPLOAD, CLAIM)).offset == 0
            assert first.ask(chunk(BLOB, 0, 30_000)).offset == 30_000
        with served.raw() as second:
            assert second.ask(second.opening(Kind.UPLOAD, CLAIM)).offset == 30_000
            assert second.ask(chunk(BLOB, 30_000, 100_000)).kind is Kind.DONE
        assert served.take(CLAIM) == BLOB


def test_a_download_goes_on_where_it_was() -> None:
    with exchanging() as served, served.raw() as stream:
        first = stream.ask(stream.opening(Kind.DOWNLOAD, served.offer(BLOB), 99_000))
        assert (first.offset, first.data) == (99_000, BLOB[99_000:])
        stream.send(ExchangeMessage(Kind.DONE, 100_000))
        assert stream.finish() == []


def test_an_upload_that_ends_too_soon_is_no_update() -> None:
    with exchanging() as served:
        with served.raw() as stream:
            stream.ask(stream.opening(Kind.UPLOAD, CLAIM))
            stream.ask(chunk(BLOB, 0, 99_999))
            assert stream.finish() == []
        with pytest.raises(FormatError, match="did not arrive"):
            served.take(CLAIM)


def test_what_is_not_what_it_claims_to_be_is_dropped_and_nothing_else() -> None:
    false = replace(CLAIM, digest=bytes(32))
    with exchanging() as served:
        with served.link(client=2) as other:
            other.upload(BLOB, 7)
        with served.raw() as stream:
            opened = stream.opening(Kind.UPLOAD, false)
            assert stream.refused(opened, chunk(BLOB, 0, 100_000)) is Code.DIGEST
        for claim in (false, CLAIM):
            with pytest.raises(FormatError, match="did not arrive"):
                served.take(claim)
        # The truth may follow, and another client's update is still there.
        with served.link() as link:
            assert served.take(link.upload(BLOB, 7)) == BLOB
        assert served.take(CLAIM, client=2) == BLOB


def test_a_receipt_that_claims_something_else_is_refused() -> None:
    with exchanging() as served, served.link() as link:
        link.upload(BLOB, 7)
        for claim in (replace(CLAIM, sequence=8), replace(CLAIM, digest=bytes(32))):
            with pytest.raises(FormatError, match="did not arrive"):
                served.take(claim)
        with pytest.raises(FormatError, match="did not arrive"):
            served.take(CLAIM, client=2)
        with pytest.raises(LimitError, match="at most 99999"):
            served.take(CLAIM, limit=99_999)


def test_longer_than_was_claimed() -> None:
    with exchanging() as served:
        short = BlobClaim.of(BLOB[:50_000], 7)
        with served.raw() as stream:
            opened = stream.opening(Kind.UPLOAD, short)
            assert stream.refused(opened, chunk(BLOB, 0, 50_001)) is Code.LIMIT
        with served.raw() as stream:
            long = replace(CLAIM, length=LARGEST + 1)
            assert stream.refused(stream.opening(Kind.UPLOAD, long)) is Code.LIMIT
        assert served.service.traffic(1)[1].up.payload == 50_001


def test_a_chunk_out_of_place() -> None:
    with exchanging() as served:
        for start in (1, 40_000):
            with served.raw() as stream:
                opened = stream.opening(Kind.UPLOAD, CLAIM)
                assert stream.refused(opened, chunk(BLOB, start, 50_000)) is Code.OFFSET
        with served.raw() as stream:
            opened = stream.opening(Kind.DOWNLOAD, served.offer(BLOB), 100_001)
            assert stream.refused(opened) is Code.OFFSET


@pytest.mark.parametrize("kind", [Kind.UPLOAD, Kind.DOWNLOAD])
def test_who_is_not_who_it_says_or_comes_too_late(kind: Kind) -> None:
    with exchanging() as served:
        claim, own = served.offer(BLOB), served.terms().token
        other = served.terms(2).token
        cases: list[tuple[dict[str, Any], Code]] = [
            ({"token": other}, Code.TOKEN),
            ({"token": b""}, Code.TOKEN),
            ({"token": own[:-1]}, Code.TOKEN),
            ({"client": 2}, Code.TOKEN),
            ({"client": 3}, Code.TOKEN),
            ({"round": 2}, Code.TOKEN),
            ({"run": 12}, Code.TOKEN),
        ]
        for given, code in cases:
            with served.raw(**given) as stream:
                assert stream.refused(stream.opening(kind, claim)) is code, given
        served.open(2, clients=[2])
        cases = [
            ({"round": 1, "token": own}, Code.DEADLINE),
            ({"round": 1, "client": 2, "token": other}, Code.DEADLINE),
            ({"round": 1, "client": 2}, Code.TOKEN),
        ]
        for given, code in cases:
            with served.raw(2, **{"client": 1, **given}) as stream:
                assert stream.refused(stream.opening(kind, claim)) is code, given


def test_a_client_of_another_phase() -> None:
    with exchanging() as served:
        own = served.terms().token
        # The same round is evaluated, by others; its training is over.
        served.open(1, clients=[2], largest=0)
        claim = served.offer(BLOB, client=2)
        for kind, code in ((Kind.UPLOAD, Code.DEADLINE), (Kind.DOWNLOAD, Code.ROUND)):
            with served.raw(2, client=1, token=own) as stream:
                assert stream.refused(stream.opening(kind, claim)) is code
        with served.raw(2) as stream:
            assert stream.refused(stream.opening(Kind.UPLOAD, CLAIM)) is Code.DEADLINE
        served.service.close_round()
        with served.raw(2) as stream:
            assert stream.refused(stream.opening(Kind.DOWNLOAD, claim)) is Code.ROUND


def test_after_the_deadline() -> None:
    with exchanging() as served:
        served.open(1, seconds=1.0)
        with served.raw() as stream, served.link() as late:
            stream.ask(stream.opening(Kind.UPLOAD, CLAIM))
            stream.ask(chunk(BLOB, 0, 10))
            served.service._rounds._phase.closes = 0.0  # type: ignore[union-attr]
            assert stream.refused(chunk(BLOB, 10, 20)) is Code.DEADLINE
            with pytest.raises(ExchangeRefusedError, match="time for uploads is up") as refused:
                late.upload(BLOB, 7)
            assert refused.value.code is Code.DEADLINE


def test_a_round_that_ends_ends_its_streams() -> None:
    with exchanging() as served, served.raw() as up, served.raw() as down:
        up.ask(up.opening(Kind.UPLOAD, CLAIM))
        down.ask(down.opening(Kind.DOWNLOAD, served.offer(BLOB)))
        served.service.close_round()
        assert up.refused() is Code.DEADLINE
        assert down.refused() is Code.DEADLINE


def test_what_is_not_on_offer() -> None:
    with exchanging() as served:
        claim = served.offer(BLOB)
        for client, wanted in ((2, claim), (1, replace(claim, digest=bytes(32)))):
            with served.raw(client) as stream:
                assert stream.refused(stream.opening(Kind.DOWNLOAD, wanted)) is Code.UNKNOWN


def test_a_newer_stream_of_a_client_goes_on() -> None:
    with exchanging() as served, served.raw() as older, served.raw(2) as other:
        older.ask(older.opening(Kind.UPLOAD, CLAIM))
        other.ask(other.opening(Kind.UPLOAD, CLAIM))
        older.ask(chunk(BLOB, 0, 1000))
        with served.raw() as newer:
            assert newer.ask(newer.opening(Kind.UPLOAD, CLAIM)).offset == 1000
            assert older.refused() is Code.REPLACED
            assert newer.ask(chunk(BLOB, 1000, 2000)).offset == 2000
        assert other.ask(chunk(BLOB, 0, 1000)).offset == 1000


def test_a_newer_update_of_a_client_replaces_the_older_one() -> None:
    newer = noise(50_000, seed=1)
    with exchanging() as served:
        with served.raw() as stream:
            stream.ask(stream.opening(Kind.UPLOAD, CLAIM))
            stream.ask(chunk(BLOB, 0, 60_000))
        with served.link() as link:
            claim = link.upload(newer, 8)
            with pytest.raises(ExchangeRefusedError, match="newer") as refused:
                link.upload(BLOB, 7)
            assert refused.value.code is Code.STALE
        assert served.take(claim) == newer
        assert served.service._room.held == 0


def test_a_silent_stream_is_ended() -> None:
    with exchanging(ttl=0.3) as served:
        with served.raw() as up, served.raw() as down:
            up.ask(up.opening(Kind.UPLOAD, CLAIM))
            down.ask(down.opening(Kind.DOWNLOAD, served.offer(BLOB)))
            assert up.refused() is Code.SILENT
            assert down.refused() is Code.SILENT
        assert len(served.service._streams) == 0
        # What had arrived is still there.
        with served.link() as link:
            assert served.take(link.upload(BLOB, 7)) == BLOB


def test_a_stream_that_does_not_say_who_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "_INTRODUCTION", 0.2)
    with exchanging() as served:
        with served.raw() as stream:
            assert stream.refused() is Code.SILENT
        for message in (chunk(BLOB, 0, 10), ExchangeMessage(Kind.ACK, 3), b"\xff"):
            with served.raw() as stream:
                assert stream.refused(message) is Code.MALFORMED


def test_more_streams_than_are_allowed() -> None:
    with exchanging(limits=ExchangeLimits(streams=2)) as served:
        with served.raw() as one, served.raw(2) as two:
            one.ask(one.opening(Kind.UPLOAD, CLAIM))
            two.ask(two.opening(Kind.UPLOAD, CLAIM))
            with served.raw() as three:
                assert three.refused(three.opening(Kind.UPLOAD, CLAIM)) is Code.BUSY
            unreachable = pytest.raises(ExchangeUnreachableError, match="2 streams are open")
            with served.link(patience=1.5) as waiting, unreachable:
                waiting.upload(BLOB, 7)
        with served.link() as link:
            assert served.take(link.upload(BLOB, 7)) == BLOB


def test_no_room_for_more_bytes() -> None:
    limits = ExchangeLimits(spooled=150_000, memory=1000)
    with exchanging(limits=limits) as served:
        with served.link() as link:
            claim = link.upload(BLOB, 7)
        unreachable = pytest.raises(ExchangeUnreachableError, match="no room")
        with served.link(client=2, patience=1.5) as waiting, unreachable:
            waiting.upload(BLOB, 7)
        assert served.service._room.held <= 150_000
        # As soon as the server has taken the first, there is.
        assert served.take(claim) == BLOB
        with served.link(client=2) as link:
            assert served.take(link.upload(BLOB, 7), client=2) == BLOB
        assert served.service._room.held == 0


@pytest.mark.parametrize("fails", ["write", "flush"])
def test_a_disk_that_is_full_loses_nothing_else(
    fails: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(BytesIO):
        def write(self, data: Any) -> int:
            if fails == "write" and self.tell() + len(data) > 50_000:
                raise OSError(ENOSPC, "No space left on device")
            return super().write(data)

        def flush(self) -> None:
            if fails == "flush":
                raise OSError(ENOSPC, "No space left on device")

        def close(self) -> None:
            raise OSError(ENOSPC, "No space left on device")

    with exchanging() as served:
        with served.link(client=2) as other:
            other.upload(BLOB, 7)
        with monkeypatch.context() as patch, served.link(patience=1.5) as waiting:
            patch.setattr(Room, "file", lambda _: Full())
            with pytest.raises(ExchangeUnreachableError, match="cannot store more bytes"):
                waiting.upload(BLOB, 7)
        assert served.service._room.held == len(BLOB)
        with served.link() as link:
            claim = link.upload(noise(1000), 8)
        assert served.take(claim) == noise(1000)
        assert served.take(CLAIM, client=2) == BLOB


def test_uploads_that_nobody_takes_are_dropped_with_their_files(tmp_path: Path) -> None:
    with exchanging(limits=ExchangeLimits(memory=1000), folder=tmp_path) as served:
        with served.link() as link:
            link.upload(BLOB, 7)
        assert served.service._room.held == len(BLOB)
        served.open(2)
        assert served.service._room.held == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("whose", ["handed out", "the device's own"])
def test_with_certificates(whose: str) -> None:
    key, chain = certificate()
    handed = chain if whose == "handed out" else None
    with exchanging(certificates=(key, chain), root=handed) as served:
        terms = served.terms()
        assert (terms.tls, terms.certificate) == (True, handed or b"")
        with served.link(root_certificates=chain) as link:
            assert served.take(link.upload(BLOB, 7)) == BLOB
        _, stranger = certificate()
        for wrong in ({"root_certificates": stranger}, {"tls": False}):
            unreachable = pytest.raises(ExchangeUnreachableError, match="expect TLS")
            with served.link(patience=1.5, **wrong) as link, unreachable:
                link.upload(BLOB, 8)


def test_an_address_that_is_taken() -> None:
    with exchanging() as served:
        second = ExchangeService(served.service.address)
        with pytest.raises(OSError, match="cannot listen on"):
            second.serve()


def test_moving_bytes_needs_neither_torch_nor_numba_nor_flower() -> None:
    program = (
        "import sys\n"
        "from flowerpress.client.exchange import ExchangeLink\n"
        "address, token = sys.argv[1], bytes.fromhex(sys.argv[2])\n"
        "with ExchangeLink(address, run=11, round=1, client=1, token=token) as link:\n"
        "    link.upload(bytes(1000), 3)\n"
        "print(sorted({'torch', 'numba', 'flwr', 'numpy'} & set(sys.modules)))\n"
    )
    with exchanging() as served:
        terms = served.terms()
        done = subprocess.run(
            [sys.executable, "-c", program, terms.address, terms.token.hex()],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert done.stdout == "[]\n"
        assert served.take(BlobClaim.of(bytes(1000), 3)) == bytes(1000)


def test_a_link_to_nobody() -> None:
    link = ExchangeLink("127.0.0.1:1", run=1, round=1, client=1, token=b"", patience=1.0)
    with link, pytest.raises(ExchangeUnreachableError, match=r"no progress with 127\.0\.0\.1:1"):
        link.upload(BLOB, 1)


def test_an_upload_that_was_given_up_takes_no_room_any_more() -> None:
    """A stream that was ended may have read a message of it already."""
    blob = noise(1000)
    room = Room(10_000, 10_000, None)
    spool = Spool(BlobClaim.of(blob, 1), room)
    spool.drop()
    with pytest.raises(Refusal, match="was given up"):
        spool.write(0, blob[:100])
    assert room.held == 0
