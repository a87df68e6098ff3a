"""A device's part of a deployment: a SuperNode that is started again until somebody says stop.

Flower keeps trying while nobody answers, but gives up for good where the server does not take it:
with a node key that is so for up to a minute after it died without saying goodbye, since the server
still believes it to be online. Here such a node waits and tries again.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from flowerpress.compression.errors import ConfigError
from flowerpress.simulations.deploy.claim import claimed
from flowerpress.simulations.deploy.exits import DeploymentError, Exit
from flowerpress.simulations.deploy.keys import read_node_key
from flowerpress.simulations.deploy.supernode import End, Ended, Member, live
from flowerpress.simulations.deploy.tls import ConnectError, ask_health
from flowerpress.simulations.deploy.waits import Waits
from flowerpress.simulations.engines.flower import FlowerHome

__all__ = ["Device", "run_device"]

# The server takes a node that died for alive until two heartbeats of 30 s were missed.
_STILL_ONLINE = 90.0
# A server that has just started still registers its devices.
_NOT_REGISTERED = 60.0
_SHORT_LIFE, _SHORT_LIVES = 20.0, 5


@dataclass(frozen=True)
class Device:
    """What ``flowerpress client`` was told.

    ``state``: a folder that outlives the process. ``data``: folder of the task's data, if it needs
    one. ``patience``: seconds without any answer from the server after which to give up; None for
    never.
    """

    member: Member
    state: Path
    data: Path | None = None
    patience: float | None = None

    def check(self) -> None:
        """Refuse files that cannot be used, before anything is started.

        Raises:
            ConfigError: a file is missing or not what it should be, or others can read the key.
        """
        if not self.member.authority.is_file():
            raise ConfigError(f"{self.member.authority}: no such file; copy ca.pem from the server")
        read_node_key(self.member.key)
        if self.data is not None and not self.data.is_dir():
            raise ConfigError(f"{self.data}: no such folder")


def run_device(device: Device, stopped: threading.Event, say: Callable[[str], None]) -> None:
    """Take part in whatever the server runs, until ``stopped`` is set.

    Raises:
        ConfigError: a file or the state folder cannot be used.
        DeploymentError: the server's certificate or this device's key is refused, nobody answered
            for longer than ``patience``, or SuperNodes keep ending by themselves.
    """
    device.check()
    with claimed(device.state, "flowerpress client", say) as claim:
        known = claim.folder / "node.json"
        home = FlowerHome(_made(claim.folder / "flower"), _variables(device), [claim.lock])
        waits = Waits(stopped, say)
        while not stopped.is_set():
            if not _answers(device, waits):
                continue
            began = time.monotonic()

            def activated(node: int) -> None:
                # A full disk is no reason to stop: without it only less is waited for.
                with suppress(OSError):
                    known.write_text(json.dumps({"node": str(node)}) + "\n", encoding="utf-8")
                say(f"connected to {device.member.server} as node {node}")

            ended = live(device.member, home, stopped, say, activated)
            if ended.activated:
                waits.answered()
            _judge(ended, time.monotonic() - began, waits, device, known.exists())


def _answers(device: Device, waits: Waits) -> bool:
    """Tell whether a SuperNode has somebody to talk to; wait a little where not."""
    try:
        ask_health(device.member.server, device.member.authority)
    except ConnectError as error:
        if error.code is Exit.REFUSED:
            raise
        if device.patience is not None and waits.silent() > device.patience:
            raise
        waits.wait(str(error))
        return False
    waits.heard()
    return True


def _judge(ended: Ended, seconds: float, waits: Waits, device: Device, known: bool) -> None:
    """Decide whether another SuperNode is worth a try, and wait until it is."""
    if ended.why is End.ASKED:
        return
    if ended.why is End.CONFIGURATION:
        raise ConfigError(f"the SuperNode cannot start:\n{ended.said}")
    if ended.why is End.NOT_ACTIVATED:
        if waits.refused() < (_STILL_ONLINE if known else _NOT_REGISTERED):
            reason = "still believes this device to be online" if known else "does not know the key"
            waits.wait(f"the server {reason}")
            return
        key = device.member.key
        raise DeploymentError(
            Exit.REFUSED,
            f"{device.member.server} does not accept the key {key}: it is not registered "
            f"(on the server: flowerpress certs register), or another device uses it",
        )
    if seconds < _SHORT_LIFE:
        if waits.died() >= _SHORT_LIVES:
            raise DeploymentError(
                Exit.TEMPORARY, f"{_SHORT_LIVES} SuperNodes ended by themselves:\n{ended.said}"
            )
    else:
        waits.lived()
    waits.wait("the SuperNode ended by itself")


def _variables(device: Device) -> dict[str, str]:
    from flowerpress.compression import kernels
    from flowerpress.simulations.tasks.folders import VARIABLE

    variables = {} if device.data is None else {VARIABLE: str(device.data)}
    # Each message is handled in a new process: kernels must be compiled once, not once each.
    cache = Path(kernels.__file__).parent / "__pycache__"
    if "NUMBA_CACHE_DIR" not in os.environ and not os.access(
        cache if cache.exists() else cache.parent, os.W_OK
    ):
        variables["NUMBA_CACHE_DIR"] = str(_made(device.state.absolute() / "kernels"))
    return variables


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder
