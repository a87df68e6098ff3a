"""Flower's own Simulation Engine, on Ray: what ``flwr run`` does, start to end.

A SuperLink of our own is started on a free port, with a Flower home of its own in a temporary
folder, and a small Flower app is run on it that holds the configuration as JSON. The app writes
the run's folder; its rounds are read from there as they appear. Nothing is left behind: neither
processes (see ``leash.py``) nor temporary files.

``flwr run --stream`` ends with 0 even where the run failed, so the run is asked for its status.
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
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO

from flowerpress.compression.errors import ConfigError
from flowerpress.simulations.config import SimulationConfig
from flowerpress.simulations.engines.errors import EngineError
from flowerpress.simulations.record import RoundRecord, RunReader

__all__ = ["FlowerLink", "run_ray"]

_START = 60.0  # seconds for the SuperLink to come up
_POLL = 0.25
_TAIL = 15  # lines of a failed run's log to show

_PROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "flowerpress-simulation"
version = "1.0.0"
description = "One simulation of flowerpress on Flower's engine"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "flowerpress"

[tool.flwr.app.components]
serverapp = "simulation_app:server"
clientapp = "simulation_app:client"

[tool.flwr.app.config]
"""

# Ray's actors import this module too, each in its own process.
_APP = '''\
"""Made for one run; the apps are flowerpress's own."""
from flowerpress.simulations.app import make_client_app, make_server_app
from flowerpress.simulations.config import SimulationConfig

config = SimulationConfig.from_json({config!r})
client = make_client_app(config)
server = make_server_app(config)
'''


def run_ray(
    config: SimulationConfig, clients: int, on_record: Callable[[RoundRecord], None] | None
) -> None:
    """Run to the end under Ray, ``config.workers`` clients at a time.

    Raises:
        EngineError: Ray is not installed, or Flower's run failed; with the end of its log.
    """
    if config.out is None:
        raise ValueError("the ray engine needs a configuration with `out`")
    reader = RunReader(config.out)
    reader.path.unlink(missing_ok=True)

    def follow() -> None:
        try:
            records = reader.poll()
        except ConfigError:
            if reader.path.exists():
                raise
            return  # not begun yet
        for record in records:
            if on_record is not None:
                on_record(record)

    source = _APP.format(config=config.to_json())
    with FlowerLink() as link:
        link.run(source, clients, config.workers, follow)
    follow()


class FlowerLink:
    """A SuperLink of one's own in a temporary folder; a context manager that ends it."""

    def __init__(self) -> None:
        try:
            import ray  # noqa: F401
        except ImportError as error:
            raise ConfigError(
                "engine 'ray' needs Ray, which is not installed: "
                "pip install 'flowerpress[simulation]', or use engine=inline"
            ) from error

    def __enter__(self) -> FlowerLink:
        self._folder = tempfile.TemporaryDirectory(
            prefix="flowerpress-", ignore_cleanup_errors=True
        )
        self.home = Path(self._folder.name)
        self._leash: subprocess.Popen[bytes] | None = None
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the SuperLink and all that it started, and remove its files."""
        if self._leash is not None and self._leash.stdin is not None:
            self._leash.stdin.close()
            self._leash.wait()
        self._folder.cleanup()

    def run(
        self, source: str, clients: int, workers: int, tick: Callable[[], None] = lambda: None
    ) -> None:
        """Run the app in ``source`` (Python that defines ``server`` and ``client``) to its end.

        ``tick`` is called a few times a second.

        Raises:
            EngineError: it failed, with the end of its log.
        """
        app = self.home / "app"
        app.mkdir(exist_ok=True)
        (app / "pyproject.toml").write_text(_PROJECT, encoding="utf-8")
        (app / "simulation_app.py").write_text(source, encoding="utf-8")
        federation = (
            f"num-supernodes={clients} client-resources-num-cpus=1 "
            f"init-args-num-cpus={workers} init-args-log-to-driver=false"
        )
        command = ["run", str(app), "press", "--stream", "--federation-config", federation]
        log = self.home / "run.log"
        with log.open("wb") as output, self._flwr(command, output) as process:
            while process.poll() is None:
                tick()
                time.sleep(_POLL)
        status = self._status()
        if status != "finished:completed":
            raise EngineError(
                f"Flower's run ended as {status!r}; the end of its log:\n{_tail(log)}"
            )

    def _start(self) -> None:
        port = _free_port()
        self._env = _environment(self.home)
        (self.home / "config.toml").write_text(
            f'[superlink]\ndefault = "press"\n[superlink.press]\n'
            f'address = "127.0.0.1:{port}"\ninsecure = true\n',
            encoding="utf-8",
        )
        log = self.home / "superlink.log"
        leash = [sys.executable, "-P", "-m", "flowerpress.simulations.engines.leash"]
        link = [_script("flower-superlink"), "--insecure", "--simulation", "--host", "127.0.0.1"]
        link += ["--port", str(port), "--disable-runtime-dependency-installation"]
        with log.open("wb") as output:
            self._leash = subprocess.Popen(
                leash + link,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._env,
            )
        deadline = time.monotonic() + _START
        while not _answers(port):
            if self._leash.poll() is not None or time.monotonic() > deadline:
                raise EngineError(f"Flower's SuperLink does not start:\n{_tail(log)}")
            time.sleep(_POLL)

    def _status(self) -> str:
        with tempfile.TemporaryFile() as output:
            with self._flwr(["ls", "press", "--format", "json"], output) as process:
                process.wait()
            output.seek(0)
            text = output.read().decode(errors="replace")
        try:
            return str(json.loads(text[text.index("{") :])["runs"][0]["status"])
        except (ValueError, KeyError, IndexError, TypeError):
            return f"unknown ({text.strip()[-200:]})"

    @contextmanager
    def _flwr(self, command: list[str], output: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
        process = subprocess.Popen(
            [_script("flwr"), *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=self._env,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def _environment(home: Path) -> dict[str, str]:
    scripts = sysconfig.get_path("scripts")
    environment = {
        **os.environ,
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        # Otherwise Flower makes a fresh environment in which nothing of this one is installed.
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        # The SuperLink finds its own helpers by name.
        "PATH": os.pathsep.join([scripts, os.environ.get("PATH", "")]),
        "NO_PROXY": ",".join(["127.0.0.1", os.environ.get("NO_PROXY", "")]),
    }
    # Ray's sessions go with the folder, unless their sockets' names would become too long.
    if len(str(home)) <= 36:
        environment["RAY_TMPDIR"] = str(home)
    return environment


def _script(name: str) -> str:
    return str(Path(sysconfig.get_path("scripts")) / name)


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(port: int) -> bool:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(f"http://127.0.0.1:{port}/health", timeout=1.0):
            return True
    except OSError:
        return False


def _tail(log: Path) -> str:
    text = re.sub(r"\x1b\[[0-9;]*m", "", log.read_text(errors="replace"))
    lines = [line for line in text.splitlines() if line.strip()]
    return "\n".join(lines[-_TAIL:])
