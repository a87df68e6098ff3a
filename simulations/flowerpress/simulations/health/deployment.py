"""Checks of a deployment before its first round: the way to the server, keys, clock, folders."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from flowerpress.client.exchange import ExchangeError, ExchangeRefusedError, measure_link
from flowerpress.compression.errors import ConfigError, WireError
from flowerpress.simulations.deploy.keys import Keys, fingerprint, read_node_key
from flowerpress.simulations.deploy.registered import is_registered
from flowerpress.simulations.deploy.tls import (
    Address,
    Answer,
    ConnectError,
    ask_health,
    ask_version,
    look_at,
)
from flowerpress.simulations.health.check import FREE_BYTES, Check, Status, tried
from flowerpress.simulations.human import duration, human_rate

__all__ = ["Looked", "deployment_checks"]

# Flower signs its messages with the time, and takes what is at most that much off (seconds).
_AHEAD, _BEHIND = 5.0, 300.0
_SOON = 30  # days


@dataclass(frozen=True)
class Looked:
    """What ``flowerpress doctor`` was asked to look at; None leaves it out."""

    server: Address | None = None
    authority: Path | None = None
    key: Path | None = None
    exchange: Address | None = None
    state: Path | None = None
    certs: Path | None = None


def deployment_checks(looked: Looked) -> Iterator[Check]:
    """Run the checks that were asked for, one after the other."""
    if looked.certs is not None:
        yield _certs(Keys(looked.certs))
    if looked.key is not None:
        yield _key(looked.key)
    if looked.state is not None:
        yield _state(looked.state)
    if looked.server is not None:
        yield from _server(looked.server, looked.authority, looked.key)
    if looked.exchange is not None:
        yield from _exchange(looked.exchange, looked.authority)


def _server(address: Address, authority: Path | None, key: Path | None) -> Iterator[Check]:
    try:
        answer = ask_health(address, authority)
    except (ConfigError, ConnectError) as error:
        yield Check(Status.FAILED, "server", str(error))
        return
    yield Check(Status.OK, "server", f"{address} answers, its certificate and name are in order")
    yield _ends("certificate", answer.days_left)
    yield _clock(answer)
    yield Check(Status.OK, "round trip", f"{answer.seconds * 1e3:.1f} ms for a request")
    yield _version(address, authority)
    if key is not None:
        yield from tried("registered", lambda: _registered(address, authority, key))


def _registered(address: Address, authority: Path | None, key: Path) -> Check:
    try:
        private = read_node_key(key)
    except ConfigError:
        return Check(Status.NOTE, "registered", "cannot be asked without a key in order")
    known = is_registered(address, authority, private)
    if known is None:
        return Check(Status.NOTE, "registered", "the server does not say whether it knows the key")
    if known:
        return Check(Status.OK, "registered", "the server knows this key")
    finding = "the server does not know this key; on the server: flowerpress certs register"
    return Check(Status.FAILED, "registered", finding)


def _ends(subject: str, days: int) -> Check:
    if days < _SOON:
        finding = f"ends in {days} days; on the server: flowerpress certs renew"
        return Check(Status.NOTE, subject, finding)
    return Check(Status.OK, subject, f"good for {days} days")


def _clock(answer: Answer) -> Check:
    if answer.ahead is None:
        return Check(Status.NOTE, "clock", "the server does not tell its own")
    here = -answer.ahead
    off = f"{abs(here):.0f} s {'ahead of' if here > 0 else 'behind'} the server's"
    if not -_BEHIND < here < _AHEAD:
        allowed = f"Flower takes {_AHEAD:.0f} s ahead and {_BEHIND:.0f} s behind"
        finding = f"{off}, and {allowed}; set it: timedatectl set-ntp true"
        return Check(Status.FAILED, "clock", finding)
    if not -_BEHIND / 2 < here < _AHEAD / 2:
        finding = f"{off}, which is near the limit; set it: timedatectl set-ntp true"
        return Check(Status.NOTE, "clock", finding)
    return Check(Status.OK, "clock", "as the server's, to a second or two")


def _version(address: Address, authority: Path | None) -> Check:
    here, there = version("flwr"), ask_version(address, authority)
    if there is None:
        finding = f"flwr {here} here; the server's is not told (a proxy hides it, as it should)"
        return Check(Status.NOTE, "versions", finding)
    if here.split(".")[:2] != there.split(".")[:2]:
        finding = f"flwr {here} here, {there} on the server; install the same on both"
        return Check(Status.FAILED, "versions", finding)
    return Check(Status.OK, "versions", f"flwr {here} here, {there} on the server")


def _exchange(address: Address, authority: Path | None) -> Iterator[Check]:
    try:
        look_at(address, authority)
    except (ConfigError, ConnectError) as error:
        finding = f"{error} (it is open while flowerpress server waits for devices and trains)"
        yield Check(Status.FAILED, "exchange", finding)
        return
    yield Check(Status.OK, "exchange", f"{address} answers, its certificate is in order")
    yield from tried("link rate", lambda: _link_rate(address, authority))


def _link_rate(address: Address, authority: Path | None) -> Check:
    root = None if authority is None else authority.read_bytes()
    try:
        rate = measure_link(str(address), tls=True, root_certificates=root)
    except ExchangeRefusedError as error:
        return Check(Status.NOTE, "link rate", str(error))
    except (ExchangeError, WireError) as error:
        finding = f"{error}; is {address} the port of the exchange?"
        return Check(Status.FAILED, "link rate", finding)
    finding = (
        f"{human_rate(rate.up)} up, {human_rate(rate.down)} down; 1 MB takes "
        f"{duration(8e6 / rate.up)} up; to budgets: client --uplink-rate {rate.up / 1e3:.0f}k"
    )
    return Check(Status.OK, "link rate", finding)


def _key(path: Path) -> Check:
    try:
        mark = fingerprint(read_node_key(path).public_key())
    except ConfigError as error:
        return Check(Status.FAILED, "key", str(error))
    return Check(Status.OK, "key", f"{path} is {mark}")


def _certs(keys: Keys) -> Check:
    try:
        keys.check()
        served = keys.served()
    except ConfigError as error:
        return Check(Status.FAILED, "certs", str(error))
    days = served.days_left()
    finding = f"for {', '.join(served.hosts)}; {len(keys.public_keys())} devices"
    if days < _SOON:
        finding += f"; ends in {days} days: flowerpress certs renew {keys.folder}"
        return Check(Status.NOTE, "certs", finding)
    return Check(Status.OK, "certs", f"{finding}; good for {days} days")


def _state(folder: Path) -> Check:
    existing = next(
        path for path in [folder.absolute(), *folder.absolute().parents] if path.exists()
    )
    try:
        with tempfile.TemporaryFile(dir=existing) as file:
            file.write(b"flowerpress")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        finding = f"{existing}: cannot be written to ({error.strerror}); chown it to this user"
        return Check(Status.FAILED, "state folder", finding)
    free = shutil.disk_usage(existing).free
    finding = f"{folder} can be written to, {free / FREE_BYTES:.1f} GiB are free"
    return Check(Status.OK if free >= FREE_BYTES else Status.NOTE, "state folder", finding)
