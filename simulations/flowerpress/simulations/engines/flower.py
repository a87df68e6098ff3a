"""Flower's own commands: where they are, what they need around them, and how they are ended.

A Flower home of one's own (``FLWR_HOME``) keeps what the user has in theirs out of a run, and a run
out of theirs. Processes that stay are started at the end of a leash (``leash.py``), so that nothing
of them outlives whoever started them.

``flwr run --stream`` ends with 0 even where the run failed, so a run is asked for its status.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO

from flowerpress.simulations.engines.errors import EngineError

__all__ = ["COMPLETED", "FlowerHome", "Leashed", "free_port", "log_tail", "without_colours"]

COMPLETED = "finished:completed"
"""Flower's status of a run that came to its end."""

_CONNECTION = "press"
_KNOWN_KEY = "[code: 23]"  # Flower's ApiErrorCode.PUBLIC_KEY_ALREADY_IN_USE
_POLL = 0.25
_TAIL = 15  # lines of a log to show


class Leashed:
    """A command at the end of a leash; whatever it started ends with it.

    The leash inherits the file descriptors ``kept``, and has them until all of that has ended.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: dict[str, str],
        output: int | IO[bytes],
        kept: Sequence[int] = (),
    ) -> None:
        leash = [sys.executable, "-P", "-m", "flowerpress.simulations.engines.leash"]
        self._process = subprocess.Popen(
            [*leash, _script(command[0]), *command[1:]],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            pass_fds=kept,
        )

    @property
    def output(self) -> IO[bytes] | None:
        """What the command writes, where it was started with ``subprocess.PIPE``."""
        return self._process.stdout

    def poll(self) -> int | None:
        """Return the exit code, None while the command runs."""
        return self._process.poll()

    def close(self) -> int:
        """Ask the command to end, see to it that it does, and return its exit code."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        return self._process.wait()


class FlowerHome:
    """A folder that Flower's commands take for their home, and what else they find around them.

    ``more`` is added to their environment. Commands that stay have ``kept``, file descriptors,
    until they have ended.
    """

    def __init__(
        self, folder: Path, more: Mapping[str, str] | None = None, kept: Sequence[int] = ()
    ) -> None:
        self.folder = folder
        self._kept = kept
        self.environment = {
            **os.environ,
            "FLWR_HOME": str(folder),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            # Otherwise Flower makes a fresh environment in which nothing of this one is installed.
            "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
            # The SuperLink and SuperNodes find their own helpers by name.
            "PATH": os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")]),
            "NO_PROXY": ",".join(["127.0.0.1", os.environ.get("NO_PROXY", "")]),
            **(more or {}),
        }

    def connect(self, address: str, authority: Path | None = None) -> None:
        """Tell ``flwr`` of the SuperLink at ``address`` (host:port); TLS where ``authority`` is."""
        secured = "insecure = true"
        if authority is not None:
            secured = f"root-certificates = {json.dumps(str(authority))}"
        (self.folder / "config.toml").write_text(
            f'[superlink]\ndefault = "{_CONNECTION}"\n[superlink.{_CONNECTION}]\n'
            f'address = "{address}"\n{secured}\n',
            encoding="utf-8",
        )

    def start(self, command: Sequence[str], output: int | IO[bytes]) -> Leashed:
        """Start a command that stays."""
        return Leashed(command, self.environment, output, self._kept)

    def run(
        self,
        app: Path,
        log: Path,
        options: Sequence[str] = (),
        tick: Callable[[], None] = lambda: None,
    ) -> str:
        """Run a Flower app to its end and return the status that Flower gives it.

        ``log`` gets what the run says; ``tick`` is called a few times a second.
        """
        command = ["run", str(app), _CONNECTION, "--stream", *options]
        with log.open("wb") as output, self._flwr(command, output) as process:
            while process.poll() is None:
                tick()
                time.sleep(_POLL)
        _, said = self.ask("ls", _CONNECTION, "--format", "json")
        try:
            return str(json.loads(said[said.index("{") :])["runs"][0]["status"])
        except (ValueError, KeyError, IndexError, TypeError):
            return f"unknown ({said.strip()[-200:]})"

    def register(self, key: Path, name: str) -> int | None:
        """Make a SuperNode's public key known, and return the node's number.

        None: it is known already.

        Raises:
            EngineError: the SuperLink does not take it, with what it says.
        """
        words = ["supernode", "register", str(key), _CONNECTION, "--name", name]
        code, said = self.ask(*words, "--format", "json")
        if _KNOWN_KEY in said:
            return None
        try:
            return int(json.loads(said[said.index("{") :])["node-id"])
        except (ValueError, KeyError, TypeError) as error:
            raise EngineError(f"cannot register {key} ({code}):\n{said.strip()}") from error

    def unregister(self, node: int) -> None:
        """Have a SuperNode refused from now on, and for ever.

        Raises:
            EngineError: the SuperLink does not know it, or does not answer.
        """
        code, said = self.ask("supernode", "unregister", str(node), _CONNECTION)
        if code:
            raise EngineError(f"cannot unregister node {node}:\n{said.strip()}")

    def online(self) -> int:
        """Return how many SuperNodes are connected.

        Raises:
            EngineError: the SuperLink does not say.
        """
        _, said = self.ask("supernode", "ls", _CONNECTION, "--format", "json")
        try:
            nodes = json.loads(said[said.index("{") :])["nodes"]
            return sum(node["status"] == "online" for node in nodes)
        except (ValueError, KeyError, TypeError) as error:
            raise EngineError(f"cannot list SuperNodes:\n{said.strip()}") from error

    def ask(self, *words: str) -> tuple[int, str]:
        """Run a short command of ``flwr``; return its exit code and what it said."""
        with tempfile.TemporaryFile() as output:
            with self._flwr(words, output) as process:
                code = process.wait()
            output.seek(0)
            return code, without_colours(output.read().decode(errors="replace"))

    @contextmanager
    def _flwr(self, words: Sequence[str], output: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
        process = subprocess.Popen(
            [_script("flwr"), *words],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=self.environment,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def free_port() -> int:
    """Return a port of this machine's loopback address that nobody listens on now."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def log_tail(log: Path) -> str:
    """Return the last lines of a log that say something."""
    text = without_colours(log.read_text(errors="replace"))
    lines = [line for line in text.splitlines() if line.strip()]
    return "\n".join(lines[-_TAIL:])


def without_colours(text: str) -> str:
    """Return text without the terminal's colour codes, which Flower writes into logs, too."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def _script(name: str) -> str:
    return str(Path(sysconfig.get_path("scripts")) / name)
