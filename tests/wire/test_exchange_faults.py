"""Connections that are cut, services that are killed, clients that stall: blobs arrive once."""

from __future__ import annotations

import gc
import queue
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import grpc
import pytest

from flowerpress.client.exchange import ExchangeRefusedError, ExchangeUnreachableError
from flowerpress.client.exchange.transfers import Talk
from flowerpress.client.stream import BrokenError
from flowerpress.protos.exchange import (
    METHOD,
    BlobClaim,
    Code,
    ExchangeMessage,
    Kind,
    channel_options,
)
from flowerpress.server.exchange import ExchangeLimits, ExchangeService
from flowerpress.simulations.linkproxy import Cut, LinkProxy
from tests.wire.exchanging import Served, chunk, exchanging, noise

BLOB = noise(60_000)
CLAIM = BlobClaim.of(BLOB, 7)


def move(served: Served, way: str, **given: Any) -> bytes:
    """Move the blob through a link, and return what is at the other end."""
    with served.link(**given) as link:
        if way == "up":
            return served.take(link.upload(BLOB, 7))
        return link.download(served.offer(BLOB))


# The HTTP/2 preface, the headers, the opening message, chunks, the last byte of the blob.
POSITIONS = (1, 30, 200, 500, 700, 9_000, 30_000, 60_000)


@pytest.mark.parametrize("way", ["up", "down"])
@pytest.mark.parametrize("position", POSITIONS)
def test_a_cut_at_any_byte_of_the_blob_s_way(way: str, position: int) -> None:
    with exchanging() as served:
        cuts = [Cut(**{way: position})]
        with LinkProxy(served.service.address, cuts=cuts) as proxy:
            assert move(served, way, address=proxy.address) == BLOB
            assert proxy.cuts == 1
        assert served.service._room.held == 0


@pytest.mark.parametrize("way", ["up", "down"])
@pytest.mark.parametrize("position", [1, 30, 100, 150])
def test_a_cut_at_any_byte_of_the_way_back(way: str, position: int) -> None:
    back = "down" if way == "up" else "up"
    with exchanging() as served:
        cuts = [Cut(**{back: position})]
        with LinkProxy(served.service.address, cuts=cuts) as proxy:
            assert move(served, way, address=proxy.address) == BLOB
            assert proxy.cuts == 1


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    ("way", "kind"),
    [
        ("up", Kind.UPLOAD),
        ("up", Kind.CHUNK),
        ("up", Kind.ACK),
        ("up", Kind.DONE),
        ("down", Kind.DOWNLOAD),
        ("down", Kind.CHUNK),
        ("down", Kind.ACK),
        ("down", Kind.DONE),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_a_cut_at_every_kind_of_message(
    way: str, kind: Kind, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    send, receive = Talk.send, Talk.receive
    cut = False

    def at(found: Kind, moment: str) -> bool:
        nonlocal cut
        due = not cut and (found, moment) == (kind, when)
        if due:
            cut = True
            proxy.cut()
        return due

    def sending(talk: Talk, message: ExchangeMessage) -> None:
        at(message.kind, "before")
        send(talk, message)
        at(message.kind, "after")

    def receiving(talk: Talk, *kinds: Kind) -> ExchangeMessage:
        if kind in kinds and kind in (Kind.ACK, Kind.DONE, Kind.CHUNK) and when == "before":
            at(kind, "before")
        message = receive(talk, *kinds)
        if at(message.kind, "after"):  # it was on its way, and is lost
            raise BrokenError("lost")
        return message

    monkeypatch.setattr(Talk, "send", sending)
    monkeypatch.setattr(Talk, "receive", receiving)
    with exchanging() as served, LinkProxy(served.service.address) as proxy:
        assert move(served, way, address=proxy.address) == BLOB
        assert cut
        assert served.service.traffic(1)[1].up.payload == (len(BLOB) if way == "up" else 0)


def test_every_connection_is_cut_and_still_it_arrives() -> None:
    blob = noise(600_000)
    with exchanging() as served:
        cuts = [Cut(up=30_000) for _ in range(15)]
        with LinkProxy(served.service.address, cuts=cuts) as proxy:
            with served.link(address=proxy.address) as link:
                assert served.take(link.upload(blob, 1)) == blob
            assert proxy.cuts == 15
        assert served.service.traffic(1)[1].up.payload == len(blob)


@pytest.mark.parametrize("secret", [b"the same", b"another"])
def test_a_service_that_dies_and_comes_back(secret: bytes) -> None:
    blob = noise(300_000)
    first = ExchangeService(secret=b"the same")
    first.serve()
    served = Served(first).open()
    outcome: list[Any] = []
    arriving = threading.Event()

    def device() -> None:
        with served.link(address=proxy.address, patience=20.0) as link:
            try:
                outcome.append(link.upload(blob, 7))
            except ExchangeRefusedError as error:
                outcome.append(error)

    with LinkProxy(first.address, up=1_000_000) as proxy:
        thread = threading.Thread(target=device)
        thread.start()
        while first.traffic(1)[1].up.payload < 50_000:
            assert thread.is_alive()
            arriving.wait(0.02)
        first.stop(grace=0.0)
        with ExchangeService(secret=secret) as second:
            anew = Served(second).open()
            proxy.target = second.address
            thread.join(20)
            if secret == b"the same":
                assert anew.take(outcome[0]) == blob
            else:
                assert outcome[0].code is Code.TOKEN
                assert "not this client's token" in str(outcome[0])


def test_a_service_that_never_comes_back() -> None:
    with exchanging() as served:
        link = served.link(patience=0.5)
    with link, pytest.raises(ExchangeUnreachableError, match=r"no progress .* for 0\.5 s"):
        link.upload(BLOB, 7)


def test_a_download_that_is_spoiled_is_fetched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    spoiled = 0
    receive = Talk.receive

    def receiving(talk: Talk, *kinds: Kind) -> ExchangeMessage:
        nonlocal spoiled
        message = receive(talk, *kinds)
        if message.kind is Kind.CHUNK and message.offset == 0 and spoiled < 1:
            spoiled += 1
            return ExchangeMessage(Kind.CHUNK, 0, bytes(len(message.data)))
        return message

    monkeypatch.setattr(Talk, "receive", receiving)
    with exchanging() as served:
        assert move(served, "down") == BLOB
        counted = served.service.traffic(1)[1].down
    assert counted.by_kind == {"blob": len(BLOB), "repeated": len(BLOB)}


def memory() -> int:
    """Return this process's resident bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def threads() -> int:
    return threading.active_count()


@pytest.mark.parametrize(
    "count", [100, pytest.param(1000, marks=pytest.mark.slow)], ids=["100", "1000"]
)
def test_reconnects_leave_nothing_behind(count: int) -> None:
    blob = noise(2_000_000)
    claim = BlobClaim.of(blob, 7)
    step = len(blob) // count
    with exchanging() as served:

        def reconnect(number: int) -> None:
            with served.raw() as up, served.raw() as down:
                start = number * step
                assert up.ask(up.opening(Kind.UPLOAD, claim)).offset == start
                assert up.ask(chunk(blob, start, start + step)).offset == start + step
                served_claim = served.offer(blob)
                assert down.ask(down.opening(Kind.DOWNLOAD, served_claim, start)).offset == start

        for number in range(count // 4):
            reconnect(number)
        gc.collect()
        before = memory(), threads()
        for number in range(count // 4, count - 1):
            reconnect(number)
        gc.collect()
        assert memory() - before[0] < 16 << 20
        assert threads() <= before[1] + 4
        with served.link() as link:
            assert served.take(link.upload(blob, 7)) == blob
        assert len(served.service._streams) <= 1


FEW_FILES = """
import resource, tempfile
resource.setrlimit(resource.RLIMIT_NOFILE, (128, 256))
from flowerpress.server.exchange import ExchangeService
with ExchangeService() as service:
    print(service.address, flush=True)
    input()
    files = [tempfile.TemporaryFile() for _ in range(20)]
    print("written", flush=True)
    input()
"""


def test_connections_leave_files_for_whoever_writes_a_checkpoint() -> None:
    command = [sys.executable, "-P", "-c", FEW_FILES]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        host, _, port = process.stdout.readline().strip().rpartition(":")
        idle = []
        try:
            for _ in range(100):
                idle.append(socket.create_connection((host, int(port))))
                time.sleep(0.03)  # all at once would be in each other's way
            process.stdin.write("\n")
            process.stdin.flush()
            assert process.stdout.readline() == "written\n"
        finally:
            for each in idle:
                each.close()
            process.communicate("\n", timeout=60)
    assert process.returncode == 0


def test_stalled_connections_cost_no_threads() -> None:
    with exchanging() as served:
        host, port = served.service.address.split(":")
        with served.link() as link:  # gRPC's own threads are there from now on
            link.upload(BLOB, 1)
        before = threads()
        stalled = [socket.create_connection((host, int(port))) for _ in range(200)]
        try:
            for each in stalled[::2]:
                each.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            with served.link(2) as link:
                assert served.take(link.upload(BLOB, 7), client=2) == BLOB
            assert threads() <= before + 4
        finally:
            for each in stalled:
                each.close()


def test_strangers_who_say_nothing_keep_nobody_out() -> None:
    silence: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    with (
        exchanging(limits=ExchangeLimits(streams=4)) as served,
        grpc.insecure_channel(served.service.address, channel_options()) as channel,
    ):
        # All on one connection.
        calls = [channel.stream_stream(METHOD)(iter(silence.get, None)) for _ in range(7)]
        while len(served.service._streams) < 4:
            time.sleep(0.01)
        with served.link(patience=5.0) as link:
            assert served.take(link.upload(BLOB, 7)) == BLOB
        assert len(served.service._streams) <= 4
        for call in calls:
            silence.put(None)
            call.cancel()
