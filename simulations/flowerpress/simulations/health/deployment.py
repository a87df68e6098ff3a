"""Checks of a deployment before its first round: the way to the server, keys, clock, folders."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from flowerpress.compression.errors import ConfigError
from flowerpress.simulations.deploy.keys import Keys, read_node_key
from flowerpress.simulations.deploy.tls import (
    Address,
    Answer,
    ConnectError,
    ask_health,
    ask_version,
    look_at,
)
from flowerpress.simulations.health.check import FREE_BYTES, Check, Status

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
        yield from _server(looked.server, looked.authority)
    if looked.exchange is not None:
        yield _exchange(looked.exchange, looked.authority)


def _server(address: Address, authority: Path | None) -> Iterator[Check]:
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


def _exchange(address: Address, authority: Path | None) -> Check:
    try:
        look_at(address, authority)
    except (ConfigError, ConnectError) as error:
        finding = f"{error} (it is open while a run goes on)"
        return Check(Status.FAILED, "exchange", finding)
    return Check(Status.OK, "exchange", f"{address} answers, its certificate is in order")


def _key(path: Path) -> Check:
    try:
        mark = read_node_key(path)
    except ConfigError as error:
        return Check(Status.FAILED, "key", str(error))
    finding = f"{path} is {mark}; the server lists it: flowerpress certs show"
    return Check(Status.OK, "key", finding)


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
