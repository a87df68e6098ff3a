"""Flower's own Simulation Engine, on Ray: what ``flwr run`` does, start to end.

A SuperLink of our own is started on a free port, with a Flower home of its own in a temporary
folder, and a small Flower app is run on it that holds the configuration as JSON. The app writes
the run's folder; its rounds are read from there as they appear. Nothing is left behind: neither
processes (see ``leash.py``) nor temporary files.
"""

from __future__ import annotations

import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

from flowerpress.compression.errors import ConfigError
from flowerpress.simulations.config import SimulationConfig
from flowerpress.simulations.engines.errors import EngineError
from flowerpress.simulations.engines.flower import (
    COMPLETED,
    FlowerHome,
    Leashed,
    free_port,
    log_tail,
)
from flowerpress.simulations.engines.project import write_app
from flowerpress.simulations.record import RoundRecord, RunReader

__all__ = ["FlowerLink", "check_ray", "run_ray"]

_START = 60.0  # seconds for the SuperLink to come up
_POLL = 0.25

_MODULE = "simulation_app"

# Ray's actors import this module too, each in its own process.
_APP = '''\
"""Made for one run; the apps are flowerpress's own."""
from flowerpress.simulations.app import make_client_app, make_server_app
from flowerpress.simulations.config import SimulationConfig

config = SimulationConfig.from_json({config!r})
client = make_client_app(config)
server = make_server_app(config)
'''


def check_ray() -> None:
    """Refuse to go on without Ray.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import ray  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "engine 'ray' needs Ray, which is not installed: "
            "pip install 'flowerpress[simulation]', or use engine=inline"
        ) from error


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
    if reader.path.exists():
        reader.poll()  # a run that goes on: these rounds are known

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
        check_ray()

    def __enter__(self) -> FlowerLink:
        self._folder = tempfile.TemporaryDirectory(
            prefix="flowerpress-", ignore_cleanup_errors=True
        )
        self.home = Path(self._folder.name)
        self._leash: Leashed | None = None
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
        if self._leash is not None:
            self._leash.close()
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
        write_app(
            app,
            "One simulation of flowerpress on Flower's engine",
            {f"{_MODULE}.py": source},
            server=f"{_MODULE}:server",
            client=f"{_MODULE}:client",
        )
        federation = (
            f"num-supernodes={clients} client-resources-num-cpus=1 "
            f"init-args-num-cpus={workers} init-args-log-to-driver=false"
        )
        log = self.home / "run.log"
        status = self._flower.run(app, log, ["--federation-config", federation], tick)
        if status != COMPLETED:
            raise EngineError(
                f"Flower's run ended as {status!r}; the end of its log:\n{log_tail(log)}"
            )

    def _start(self) -> None:
        port = free_port()
        self._flower = FlowerHome(self.home, _ray(self.home))
        self._flower.connect(f"127.0.0.1:{port}")
        log = self.home / "superlink.log"
        link = ["flower-superlink", "--insecure", "--simulation", "--host", "127.0.0.1"]
        link += ["--port", str(port), "--disable-runtime-dependency-installation"]
        with log.open("wb") as output:
            self._leash = self._flower.start(link, output)
        deadline = time.monotonic() + _START
        while not _answers(port):
            if self._leash.poll() is not None or time.monotonic() > deadline:
                raise EngineError(f"Flower's SuperLink does not start:\n{log_tail(log)}")
            time.sleep(_POLL)


def _ray(home: Path) -> dict[str, str]:
    """Return what Ray reads of its environment."""
    variables = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    # Ray's sessions go with the folder, unless their sockets' names would become too long.
    if len(str(home)) <= 36:
        variables["RAY_TMPDIR"] = str(home)
    return variables


def _answers(port: int) -> bool:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(f"http://127.0.0.1:{port}/health", timeout=1.0):
            return True
    except OSError:
        return False
