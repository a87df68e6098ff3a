"""A real SuperLink and real SuperNodes on loopback, of which nothing is left afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from flwr.app.user_config import UserConfig

from flowerpress.simulations.engines.flower import free_port

CLIENTS = 2


class Deployment:
    """Flower's processes, each at the end of a leash, and ``flwr`` to talk to them.

    Every device has a Flower home of its own, as devices do; with ``journals`` a state folder, too.
    ``through`` gives each device, by its number, the address by which it reaches the SuperLink at
    another one.
    """

    def __init__(
        self,
        folder: Path,
        stack: ExitStack,
        *,
        journals: bool = False,
        through: Callable[[int, str], str] = lambda _, address: address,
    ) -> None:
        self._folder = folder
        self._stack = stack
        port = free_port()
        self._link = f"127.0.0.1:{port}"
        self._home("user").joinpath("config.toml").write_text(
            f'[superlink]\ndefault = "test"\n[superlink.test]\naddress = "{self._link}"\n'
            "insecure = true\n"
        )
        no_install = "--disable-runtime-dependency-installation"
        self._start("superlink", "flower-superlink", "--insecure", "--port", str(port), no_install)
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))

        def answers() -> bool:
            try:
                with direct.open(f"http://{self._link}/health", timeout=1.0):
                    return True
            except OSError:
                return False

        self._wait(answers)
        for number in range(CLIENTS):
            config = f"partition-id={number} num-partitions={CLIENTS}"
            if journals:
                config += f' state-folder="{folder / f"state-{number}"}"'
            node = ["flower-supernode", "--insecure", "--superlink", through(number, self._link)]
            node += ["--port", str(free_port()), "--node-config", config]
            self._start(f"node-{number}", *node)

    def run(self, app: Path, settings: UserConfig, seconds: float = 180) -> str:
        """Run the app to its end; return the status that Flower gives the run."""
        config = " ".join(f"{name}={json.dumps(value)}" for name, value in settings.items())
        self._flwr("run", str(app), "test", "--stream", "--run-config", config, seconds=seconds)
        listed = self._flwr("ls", "test", "--format", "json", seconds=60)
        return str(json.loads(listed[listed.index("{") :])["runs"][0]["status"])

    def logs(self) -> str:
        """Return the ends of all logs."""
        texts = {log.stem: log.read_text(errors="replace") for log in self._folder.glob("*.log")}
        return "\n".join(f"--- {name}\n{text[-4000:]}" for name, text in sorted(texts.items()))

    def _home(self, name: str) -> Path:
        home = self._folder / name
        home.mkdir(exist_ok=True)
        return home

    def _environment(self, name: str) -> dict[str, str]:
        scripts = sysconfig.get_path("scripts")
        return {
            **os.environ,
            "FLWR_HOME": str(self._home(name)),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
            "PATH": os.pathsep.join([scripts, os.environ.get("PATH", "")]),
            "NO_PROXY": ",".join(["127.0.0.1", os.environ.get("NO_PROXY", "")]),
        }

    def _start(self, name: str, *command: str) -> None:
        leash = [sys.executable, "-P", "-m", "flowerpress.simulations.engines.leash"]
        with (self._folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [*leash, script(command[0]), *command[1:]],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment(name),
            )
        self._stack.callback(process.communicate)  # closes its input: the leash ends the rest

    def _wait(self, condition: Callable[[], bool], seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(f"Flower does not start:\n{self.logs()}")
            time.sleep(0.2)

    def _flwr(self, *command: str, seconds: float) -> str:
        done = subprocess.run(
            [script("flwr"), *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self._environment("user"),
            timeout=seconds,
            text=True,
            check=False,
        )
        (self._folder / f"flwr-{command[0]}.log").write_text(done.stdout)
        return done.stdout


@contextmanager
def deployment(folder: Path, *, journals: bool = False) -> Iterator[Deployment]:
    with ExitStack() as stack:
        yield Deployment(folder, stack, journals=journals)


def script(name: str) -> str:
    return str(Path(sysconfig.get_path("scripts")) / name)


def marked(word: str) -> list[str]:
    """Return the command lines of the processes that carry the mark, this one left out."""
    found = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            if word.encode() in environ.read_bytes() and environ.parent.name != str(os.getpid()):
                found.append((environ.parent / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found
