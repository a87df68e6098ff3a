"""One life of a SuperNode: started at the end of a leash, listened to, and how it ended.

Flower gives every failure the same exit status; what happened stands in its last lines
(``Exit Code: 305``, ``[code: 2004]``), which are read here.
"""

from __future__ import annotations

import json
import re
import subprocess
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from flowerpress.simulations.deploy.tls import Address
from flowerpress.simulations.engines.flower import FlowerHome, free_port, without_colours

__all__ = ["End", "Ended", "Member", "live"]

_TICK = 0.2
_KEPT = 12  # last lines, for whoever asks what went wrong

_ACTIVATED = re.compile(r"SuperNode ID: (\d+)")
_CODE = re.compile(r"Exit Code: (\d+)")
# Flower's ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED: the key is not registered, or still online.
_NOT_ACTIVATED = "[code: 2004]"
_REFUSED_OPTIONS = {"302", "303", "304", "600", "603", "604", "606"}
# What uvicorn says of the SuperNode's own small server, and what says nothing.
_NOISE = re.compile(r"INFO:\s+(Started|Waiting|Application|Uvicorn|Shutting|Finished)|\s*$")


class End(Enum):
    """Why a SuperNode is no more."""

    ASKED = "asked"
    NOT_ACTIVATED = "not activated"
    CONFIGURATION = "configuration"
    OTHER = "other"


@dataclass(frozen=True)
class Ended:
    """How it ended. ``activated``: the server had taken it; ``said``: its last lines."""

    why: End
    activated: bool
    said: str


@dataclass(frozen=True)
class Member:
    """What a device shows the server, and what its ClientApps read of their node.

    ``node`` are keys and values of Flower's node configuration.
    """

    server: Address
    authority: Path
    key: Path
    node: dict[str, str | int | float]

    def command(self) -> list[str]:
        """Return the SuperNode's command line."""
        words = ["flower-supernode", "--superlink", str(self.server)]
        words += ["--root-certificates", str(self.authority)]
        words += ["--auth-supernode-private-key", str(self.key)]
        # Its own processes find it there; two SuperNodes of one machine need two.
        words += ["--host", "127.0.0.1", "--port", str(free_port())]
        # Flower reads the values as TOML, of which JSON's numbers and strings are a part.
        pairs = [f"{name}={json.dumps(value)}" for name, value in self.node.items()]
        return [*words, "--node-config", " ".join(pairs)]


def live(
    member: Member,
    home: FlowerHome,
    stopped: threading.Event,
    say: Callable[[str], None],
    on_activated: Callable[[int], None],
) -> Ended:
    """Run a SuperNode until it ends or ``stopped`` is set; whatever it started ends with it.

    ``say`` gets what it says, line by line, from another thread; ``on_activated`` its node id.
    """
    node = home.start(member.command(), subprocess.PIPE)
    last: deque[str] = deque(maxlen=_KEPT)
    activated = threading.Event()

    def listen() -> None:
        assert node.output is not None
        for raw in node.output:
            line = without_colours(raw.decode(errors="replace")).rstrip()
            if _NOISE.match(line):
                continue
            last.append(line)
            found = _ACTIVATED.search(line)
            if found:
                activated.set()
                on_activated(int(found[1]))
            say(line)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        # Where nobody can be told any more, nobody reads what the SuperNode says, and it would wait
        # for ever to be rid of it.
        while node.poll() is None and listener.is_alive() and not stopped.wait(_TICK):
            pass
    finally:
        node.close()
        listener.join(_TICK)
    said = "\n".join(last)
    return Ended(_why(said, stopped.is_set()), activated.is_set(), said)


def _why(said: str, asked: bool) -> End:
    if asked:
        return End.ASKED
    code = _CODE.search(said)
    if _NOT_ACTIVATED in said:
        return End.NOT_ACTIVATED
    if code and code[1] in _REFUSED_OPTIONS:
        return End.CONFIGURATION
    return End.OTHER
