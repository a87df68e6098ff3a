"""A thin link that breaks, in front of a service: rates, latency, breaks, counts."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from flowerpress.compression.errors import ConfigError
from flowerpress.simulations.linkproxy import Carried, Cut, LinkProxy, random_cuts
from tests.cli.conftest import command

BROKEN = "reset by peer|Broken pipe|not connected"
SCRIPT = "from flowerpress.simulations.cli import main; main()"


class Echo:
    """Answers each connection with what it sent, once it has ended, in reverse."""

    def __init__(self) -> None:
        self.received: list[int] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def stop(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        at = len(self.received)
        self.received.append(0)
        body = b""
        try:
            with connection:
                while data := connection.recv(1 << 16):
                    body += data
                    self.received[at] = len(body)
                connection.sendall(body[::-1])
        except OSError:
            pass


@pytest.fixture
def echo() -> Iterator[Echo]:
    service = Echo()
    yield service
    service.stop()


def asked(proxy: LinkProxy, body: bytes) -> bytes:
    """Send, end, and return the whole answer; OSError where the link breaks."""
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=60) as connection:
        connection.sendall(body)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while data := connection.recv(1 << 16):
            answer += data
    return answer


def closed(proxy: LinkProxy) -> list[Carried]:
    """Return the counts once all connections have ended."""
    while proxy.total.open:
        time.sleep(0.01)
    return proxy.counts


def test_everything_arrives_and_is_counted(echo: Echo) -> None:
    bodies = [os.urandom(size) for size in (0, 1, 300_000, 2_000_000)]
    with LinkProxy(echo.address) as proxy:
        for body in bodies:
            assert asked(proxy, body) == body[::-1]
        assert closed(proxy) == [Carried(len(body), len(body)) for body in bodies]
        assert (proxy.cuts, proxy.refused) == (0, 0)


@pytest.mark.parametrize(("up", "down"), [(256e3, None), (None, 256e3)])
def test_nothing_is_faster_than_the_link(echo: Echo, up: float | None, down: float | None) -> None:
    body = os.urandom(16_000)  # half a second
    with LinkProxy(echo.address, up=up, down=down) as proxy:
        begun = time.monotonic()
        assert asked(proxy, body) == body[::-1]
        # A link that was idle takes 50 ms at once.
        assert time.monotonic() - begun >= 8 * len(body) / 256e3 - 0.051


def test_connections_share_the_link(echo: Echo) -> None:
    body = os.urandom(8_000)
    with LinkProxy(echo.address, up=256e3) as proxy:
        threads = [threading.Thread(target=asked, args=(proxy, body)) for _ in range(3)]
        begun = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert time.monotonic() - begun >= 3 * 8 * len(body) / 256e3 - 0.051
        assert closed(proxy) == [Carried(8_000, 8_000)] * 3


def test_latency_is_there_in_both_directions(echo: Echo) -> None:
    with LinkProxy(echo.address, latency=0.2) as proxy:
        begun = time.monotonic()
        assert asked(proxy, b"ping") == b"gnip"
        assert time.monotonic() - begun >= 0.4


def test_little_waits_in_the_proxy(echo: Echo) -> None:
    """A sender cannot hand over more than the link carries, but for small buffers."""
    with LinkProxy(echo.address, up=8e3) as proxy, socket.socket() as sender:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        sender.connect(("127.0.0.1", proxy.port))
        sender.settimeout(0.3)
        taken = 0
        with contextlib.suppress(TimeoutError):
            while taken < 1_000_000:
                taken += sender.send(bytes(1000))
        assert taken - proxy.total.up < 40_000


def test_breaks_come_after_exactly_so_many_bytes(echo: Echo) -> None:
    body = os.urandom(50_000)
    with LinkProxy(echo.address, cuts=[Cut(up=20_000), Cut(up=7), Cut(down=30_000)]) as proxy:
        for _ in range(3):
            with pytest.raises(OSError, match=BROKEN):
                asked(proxy, body)
        assert asked(proxy, body) == body[::-1]
        assert closed(proxy) == [
            Carried(20_000, 0, cut=True),
            Carried(7, 0, cut=True),
            Carried(50_000, 30_000, cut=True),
            Carried(50_000, 50_000),
        ]
        assert proxy.cuts == 3
    assert echo.received[0] <= 20_000
    assert echo.received[-1] == 50_000


def test_a_break_ends_all_connections_and_an_outage_refuses_new_ones(echo: Echo) -> None:
    with LinkProxy(echo.address) as proxy:
        connections = [socket.create_connection(("127.0.0.1", proxy.port)) for _ in range(3)]
        for connection in connections:
            connection.sendall(b"x")
        while proxy.total.up < 3:
            time.sleep(0.01)
        proxy.cut(outage=3600)
        for connection in connections:
            with connection, pytest.raises(OSError, match=BROKEN):
                connection.recv(1)
        with pytest.raises(OSError, match=BROKEN):
            asked(proxy, b"x")
        assert (proxy.cuts, proxy.refused) == (1, 1)
        proxy.cut()
        assert asked(proxy, b"ab") == b"ba"


def test_a_break_after_a_time(echo: Echo) -> None:
    with LinkProxy(echo.address, cuts=[Cut(seconds=0.1)]) as proxy:
        with (
            socket.create_connection(("127.0.0.1", proxy.port)) as connection,
            pytest.raises(OSError, match=BROKEN),
        ):
            connection.recv(1)
        assert asked(proxy, b"ab") == b"ba"


def test_a_service_that_is_not_there_and_one_that_moved(echo: Echo) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with LinkProxy(f"127.0.0.1:{unused.getsockname()[1]}") as proxy:
            with pytest.raises(OSError, match=BROKEN):
                asked(proxy, b"ab")
            proxy.target = echo.address
            assert asked(proxy, b"ab") == b"ba"
            assert [one.cut for one in closed(proxy)] == [True, False]


def test_times_of_random_breaks_are_those_of_the_seed() -> None:
    def times(seed: int) -> list[Cut]:
        return list(itertools.islice(random_cuts(30.0, seed, outage=2.0), 2000))

    assert times(1) == times(1) != times(2)
    gaps = [cut.seconds or 0.0 for cut in times(1)]
    assert sum(gaps) / len(gaps) == pytest.approx(30, rel=0.1)
    assert {cut.outage for cut in times(1)} == {2.0}


@pytest.mark.parametrize(
    "given",
    [{}, {"up": 1, "down": 1}, {"up": 0}, {"seconds": float("nan")}, {"up": 1, "outage": -1.0}],
)
def test_cuts_that_mean_nothing(given: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        Cut(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize("address", ["8000", "127.0.0.1:", ":8000", "127.0.0.1:x", "a:70000"])
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(ConfigError, match="write host:port"):
        LinkProxy(address)


def test_a_port_that_is_taken(echo: Echo) -> None:
    with (
        pytest.raises(ConfigError, match="cannot listen on 127"),
        LinkProxy(echo.address, listen=echo.address),
    ):
        pass


def test_the_command(echo: Echo) -> None:
    words = ["proxy", echo.address, "--link", "same(rate=1M,down=8M,latency=0.02)"]
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *words, "--cut-every", "1h", "--seed", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        assert process.stdout is not None
        found = re.match(r"Listening on 127.0.0.1:(\d+), for", process.stdout.readline())
        assert found is not None, process.communicate()
        assert "1 Mbit/s up, 8 Mbit/s down, 20 ms" in process.stdout.readline()
        with socket.create_connection(("127.0.0.1", int(found[1]))) as connection:
            connection.sendall(b"x" * 2048)
            connection.shutdown(socket.SHUT_WR)
            assert connection.makefile("rb").read() == b"x" * 2048
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert (process.returncode, err) == (0, "")
    assert "2.00 KiB up, 2.00 KiB down; connections: 1 (0 open), breaks: 0, refused: 0" in out
    assert out.endswith("Stopped.\n")


def test_mistakes_on_the_command_line() -> None:
    for words, said in (
        (["127.0.0.1:1", "--cut-every", "often"], "write a time such as 30s"),
        (["127.0.0.1:1", "--cut-every", "0s"], "above zero"),
        (["nowhere"], "write host:port"),
        (["127.0.0.1:1", "--link", "same(rate=-1)"], "rate of same"),
    ):
        told = command("proxy", *words)
        assert told.code == 2
        assert said in told.err
