"""One connection to a server: whether it answers, and if not, which of many reasons it is.

Flower retries for ever where nobody answers, and where a certificate is wrong it shows OpenSSL's
words. A device that nobody looks at needs the reason and the remedy in one line.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import time
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum
from pathlib import Path

from cryptography import x509

from flowerpress.compression.errors import ConfigError
from flowerpress.simulations.deploy.authority import hosts_of
from flowerpress.simulations.deploy.exits import DeploymentError, Exit

__all__ = ["Address", "Answer", "ConnectError", "Reason", "ask_health", "ask_version", "look_at"]

_TIMEOUT = 10.0
_LARGEST = 4 << 20  # bytes of an answer

# OpenSSL's codes of verification (x509_vfy.h).
_NOT_YET, _EXPIRED, _WRONG_NAME, _WRONG_ADDRESS = 9, 10, 62, 64


class Reason(Enum):
    """Why a server cannot be talked to."""

    UNKNOWN_HOST = "unknown host"
    UNREACHABLE = "unreachable"
    NO_TLS = "no TLS"
    UNKNOWN_CA = "unknown CA"
    EXPIRED = "expired"
    NOT_YET_VALID = "not yet valid"
    WRONG_NAME = "wrong name"
    NO_HEALTH = "no health"


class ConnectError(DeploymentError):
    """A server cannot be talked to; ``reason`` says why in a word, the message what to do."""

    def __init__(self, reason: Reason, message: str) -> None:
        self.reason = reason
        away = reason in (Reason.UNREACHABLE, Reason.UNKNOWN_HOST, Reason.NO_HEALTH)
        super().__init__(Exit.UNAVAILABLE if away else Exit.REFUSED, message)


@dataclass(frozen=True)
class Address:
    """Where a server listens."""

    host: str
    port: int

    @classmethod
    def read(cls, text: str) -> Address:
        """Read ``host:port``; an IPv6 address stands in brackets.

        Raises:
            ConfigError: it is not that.
        """
        host, _, port = text.rpartition(":")
        plain = host.removeprefix("[").removesuffix("]")
        usable = port.isascii() and port.isdecimal() and 0 < int(port) < 1 << 16
        if not plain or not usable or "/" in host or (":" in plain and plain == host):
            raise ConfigError(
                f"{text!r} is not host:port, such as server.example:8000 or [::1]:8000"
            )
        return cls(plain, int(port))

    def __str__(self) -> str:
        """Return it as it is written."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Answer:
    """What a server that can be talked to tells.

    ``ends``: when its certificate does (UTC). ``ahead``: seconds that its clock is ahead of ours,
    to a second; None where it does not say. ``seconds``: of a request and its answer.
    """

    ends: datetime
    ahead: float | None
    seconds: float

    @property
    def days_left(self) -> int:
        """Whole days until the certificate ends."""
        return (self.ends - datetime.now(UTC)).days


def ask_health(address: Address, authority: Path | None) -> Answer:
    """Ask a SuperLink for its health over TLS, with its certificate verified.

    Args:
        authority: PEM of the authority to trust; None trusts those of the system.

    Raises:
        ConfigError: ``authority`` cannot be read.
        ConnectError: it cannot be talked to; the reason is one of ``Reason``.
    """
    connection = _connected(address, _context(authority))
    with closing(connection):
        _health(connection, address)  # the first one pays for what is set up on the other side
        began = time.monotonic()
        date = _health(connection, address)
        seconds = time.monotonic() - began
        ends = _ends(connection)
    return Answer(
        ends, None if date is None else (date - datetime.now(UTC)).total_seconds(), seconds
    )


def ask_version(address: Address, authority: Path | None) -> str | None:
    """Return the version of Flower that a SuperLink has; None where it does not say.

    Raises:
        ConfigError: ``authority`` cannot be read.
        ConnectError: there is no connection.
    """
    with closing(_connected(address, _context(authority))) as connection:
        try:
            connection.request("GET", "/openapi.json")
            response = connection.getresponse()
            body = response.read(_LARGEST)
            told = json.loads(body)["info"]["version"] if response.status == 200 else None
        except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
            return None
    return told if isinstance(told, str) and len(told) < 64 else None


def look_at(address: Address, authority: Path | None) -> datetime:
    """Make a TLS connection and end it, for a port that speaks something else than HTTP/1.

    Returns the moment at which the certificate ends (UTC); raises as ``ask_health`` does.
    """
    with closing(_connected(address, _context(authority))) as connection:
        return _ends(connection)


def _ends(connection: http.client.HTTPSConnection) -> datetime:
    shown = connection.sock.getpeercert(binary_form=True) or b""
    return x509.load_der_x509_certificate(shown).not_valid_after_utc


def _context(authority: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=None if authority is None else str(authority))
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"{authority}: is not a certificate in PEM: {error}") from error


def _connected(address: Address, context: ssl.SSLContext) -> http.client.HTTPSConnection:
    connection = http.client.HTTPSConnection(
        address.host, address.port, timeout=_TIMEOUT, context=context
    )
    try:
        connection.connect()
    except ssl.SSLCertVerificationError as error:
        raise _explained(address, error) from error
    except ssl.SSLEOFError as error:
        # As a proxy does whose server is away, or a link that breaks: somebody else may come.
        message = (
            f"{address}: closed the connection before there was TLS; is the server starting, is "
            "it the right port?"
        )
        raise ConnectError(Reason.UNREACHABLE, message) from error
    except ssl.SSLError as error:
        message = f"{address}: no TLS there ({error.reason}); is it the right port?"
        raise ConnectError(Reason.NO_TLS, message) from error
    except OSError as error:
        raise _away(address, error) from error
    return connection


def _away(address: Address, error: OSError) -> ConnectError:
    if isinstance(error, socket.gaierror):
        message = f"{address.host}: no such host; check the name and this machine's DNS"
        return ConnectError(Reason.UNKNOWN_HOST, message)
    told = "no answer" if isinstance(error, TimeoutError) else (error.strerror or str(error))
    message = f"{address}: {told}; is the server running, the port open, a firewall between?"
    return ConnectError(Reason.UNREACHABLE, message)


def _health(connection: http.client.HTTPSConnection, address: Address) -> datetime | None:
    """Return the moment that the server's clock showed."""
    try:
        connection.request("GET", "/health")
        response = connection.getresponse()
        response.read(1 << 16)
    except (OSError, http.client.HTTPException) as error:
        message = f"{address}: answers TLS but not /health ({error}); is it a SuperLink?"
        raise ConnectError(Reason.NO_HEALTH, message) from error
    if response.status != 200:
        message = (
            f"{address}: /health answers {response.status}; a proxy in front of it must let "
            "/health and /v1/fleet/ through"
        )
        raise ConnectError(Reason.NO_HEALTH, message)
    date = response.getheader("Date")
    try:
        return None if date is None else parsedate_to_datetime(date)
    except ValueError:
        return None


def _explained(address: Address, error: ssl.SSLCertVerificationError) -> ConnectError:
    """Say what is wrong with a certificate, with its own names and dates."""
    shown: x509.Certificate | None = None
    unchecked = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    unchecked.check_hostname = False
    unchecked.verify_mode = ssl.CERT_NONE
    try:
        with closing(_connected(address, unchecked)) as connection:
            shown = x509.load_der_x509_certificate(connection.sock.getpeercert(True) or b"")
    except (ConnectError, ValueError):
        pass
    now = f"this machine's clock says {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    if error.verify_code == _EXPIRED:
        when = f" on {shown.not_valid_after_utc:%Y-%m-%d}" if shown else ""
        message = f"{address}: its certificate has expired{when} ({now}); on the server: "
        return ConnectError(Reason.EXPIRED, f"{message}flowerpress certs renew")
    if error.verify_code == _NOT_YET:
        when = f" before {shown.not_valid_before_utc:%Y-%m-%d %H:%M} UTC" if shown else ""
        message = f"{address}: its certificate is not yet valid{when} ({now}); set the clock"
        return ConnectError(Reason.NOT_YET_VALID, message)
    if error.verify_code in (_WRONG_NAME, _WRONG_ADDRESS):
        names = ", ".join(hosts_of(shown)) if shown else "others"
        message = (
            f"{address}: its certificate is for {names}, not for {address.host}; use one of these, "
            f"or on the server: flowerpress certs renew --host {address.host}"
        )
        return ConnectError(Reason.WRONG_NAME, message)
    message = (
        f"{address}: its certificate is signed by an authority that ca.pem does not name "
        f"({error.verify_message}); copy ca.pem anew from the server, over a way you trust"
    )
    return ConnectError(Reason.UNKNOWN_CA, message)
