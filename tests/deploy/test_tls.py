"""Each way in which a server cannot be talked to, against servers that are wrong in that way."""

from __future__ import annotations

import http.server
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flowerpress.compression import ConfigError
from flowerpress.simulations.deploy.authority import Authority, Pair
from flowerpress.simulations.deploy.exits import Exit
from flowerpress.simulations.deploy.tls import (
    Address,
    ConnectError,
    Reason,
    ask_health,
    ask_version,
    look_at,
)


class Healthy(http.server.BaseHTTPRequestHandler):
    """Answers as a SuperLink does, or as ``status`` of the server says."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        told = {"/health": b"ok", "/openapi.json": b'{"info": {"version": "1.41.0"}}'}
        body = told.get(self.path, b"")
        self.send_response(getattr(self.server, "status", 200) if body else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def served(
    folder: Path, pair: Pair | None, status: int = 200, host: str = "127.0.0.1"
) -> Iterator[int]:
    """Serve on loopback with that certificate, or without TLS; yield the port."""
    server = http.server.ThreadingHTTPServer((host, 0), Healthy)
    server.status = status  # type: ignore[attr-defined]
    if pair is not None:
        (folder / "key.pem").write_bytes(pair.key)
        (folder / "chain.pem").write_bytes(pair.certificate)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "chain.pem", folder / "key.pem")
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.new("tests")


@pytest.fixture
def trusted(authority: Authority, tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    path.write_bytes(authority.pair.certificate)
    return path


def refused(address: Address, trusted: Path | None) -> ConnectError:
    """Return what both ways to look say, which must be the same."""
    with pytest.raises(ConnectError) as one:
        ask_health(address, trusted)
    with pytest.raises(ConnectError) as other:
        look_at(address, trusted)
    assert str(one.value) == str(other.value)
    return one.value


def test_a_server_in_order(authority: Authority, trusted: Path, tmp_path: Path) -> None:
    with served(tmp_path, authority.issue(["localhost"], 20)) as port:
        for host in ("localhost", "127.0.0.1"):
            answer = ask_health(Address(host, port), trusted)
            assert answer.days_left in (19, 20)
            assert answer.ahead is not None
            assert abs(answer.ahead) < 60
            assert ask_version(Address(host, port), trusted) == "1.41.0"


def test_an_expired_certificate(authority: Authority, trusted: Path, tmp_path: Path) -> None:
    ended = datetime.now(UTC) - timedelta(days=3)
    pair = authority.issue(["localhost"], 30, start=ended - timedelta(days=30))
    with served(tmp_path, pair) as port:
        error = refused(Address("localhost", port), trusted)
    assert (error.reason, error.code) == (Reason.EXPIRED, Exit.REFUSED)
    assert f"has expired on {ended:%Y-%m-%d}" in str(error)
    assert "flowerpress certs renew" in str(error)
    assert "this machine's clock says" in str(error)


def test_a_certificate_of_the_future(authority: Authority, trusted: Path, tmp_path: Path) -> None:
    pair = authority.issue(["localhost"], 30, start=datetime.now(UTC) + timedelta(days=3))
    with served(tmp_path, pair) as port:
        error = refused(Address("localhost", port), trusted)
    assert (error.reason, error.code) == (Reason.NOT_YET_VALID, Exit.REFUSED)
    assert "set the clock" in str(error)


def test_a_name_that_the_certificate_does_not_have(
    authority: Authority, trusted: Path, tmp_path: Path
) -> None:
    # All of 127.0.0.0/8 is this machine, and only the first of these is in the certificate.
    with served(tmp_path, authority.issue(["press.example"], 30), host="127.0.0.2") as port:
        error = refused(Address("127.0.0.2", port), trusted)
    assert (error.reason, error.code) == (Reason.WRONG_NAME, Exit.REFUSED)
    assert "is for press.example, localhost, 127.0.0.1, not for 127.0.0.2" in str(error)
    assert "certs renew --host 127.0.0.2" in str(error)


def test_another_authority(authority: Authority, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    other.write_bytes(Authority.new("another").pair.certificate)
    with served(tmp_path, authority.issue(["localhost"], 30)) as port:
        error = refused(Address("localhost", port), other)
        assert (error.reason, error.code) == (Reason.UNKNOWN_CA, Exit.REFUSED)
        assert "copy ca.pem anew" in str(error)
        # The authorities of the system know nothing of this one either.
        assert refused(Address("localhost", port), None).reason is Reason.UNKNOWN_CA


def test_no_tls_at_all(trusted: Path, tmp_path: Path) -> None:
    with served(tmp_path, None) as port:
        error = refused(Address("localhost", port), trusted)
    assert (error.reason, error.code) == (Reason.NO_TLS, Exit.REFUSED)


def test_a_connection_that_is_closed_while_tls_begins(trusted: Path) -> None:
    """A proxy without its server does that, or a link that breaks: it is worth another try."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def close() -> None:
            for _ in range(2):
                connection, _ = listener.accept()
                connection.recv(4096)
                connection.close()

        thread = threading.Thread(target=close)
        thread.start()
        error = refused(Address("127.0.0.1", listener.getsockname()[1]), trusted)
        thread.join()
    assert (error.reason, error.code) == (Reason.UNREACHABLE, Exit.UNAVAILABLE)
    assert "closed the connection before there was TLS" in str(error)


def test_nobody_there(trusted: Path) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        error = refused(Address("127.0.0.1", held.getsockname()[1]), trusted)
    assert (error.reason, error.code) == (Reason.UNREACHABLE, Exit.UNAVAILABLE)
    assert "is the server running" in str(error)


def test_a_name_that_nobody_has(trusted: Path) -> None:
    error = refused(Address("nobody.invalid", 8000), trusted)
    assert (error.reason, error.code) == (Reason.UNKNOWN_HOST, Exit.UNAVAILABLE)


def test_something_else_behind_tls(authority: Authority, trusted: Path, tmp_path: Path) -> None:
    with served(tmp_path, authority.issue(["localhost"], 30), status=403) as port:
        with pytest.raises(ConnectError) as found:
            ask_health(Address("localhost", port), trusted)
        assert found.value.reason is Reason.NO_HEALTH
        assert "/health answers 403" in str(found.value)
        assert ask_version(Address("localhost", port), trusted) is None
        look_at(Address("localhost", port), trusted)


@pytest.mark.parametrize(
    "text",
    ["", "host", "host:", ":8000", "host:x", "host:0", "host:65536", "a/b:1", "::1:8000", "h:-1"],
)
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError, match="is not host:port"):
        Address.read(text)


@pytest.mark.parametrize("text", ["press.example:8000", "[::1]:8000", "127.0.0.1:1"])
def test_addresses_are_written_as_they_are_read(text: str) -> None:
    assert str(Address.read(text)) == text


def test_a_file_that_is_no_certificate(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_text("nothing")
    with pytest.raises(ConfigError, match="is not a certificate"):
        ask_health(Address("localhost", 1), path)
