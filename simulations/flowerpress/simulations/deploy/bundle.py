"""The Flower app of a configured run: what ``flwr run`` bundles and sends to every device."""

from __future__ import annotations

from pathlib import Path

from flowerpress.compression.errors import ConfigError
from flowerpress.simulations.config import SimulationConfig
from flowerpress.simulations.engines.project import write_app

__all__ = ["write_bundle"]

# Two modules: a device imports nothing of a server, and the other way round.
_SERVER = '''\
"""Made for one run; the app is flowerpress's own."""
from flowerpress.simulations.deploy.served import make_served_app

server = make_served_app()
'''

_CLIENT = '''\
"""Made for one run; the app is flowerpress's own."""
from pathlib import Path

from flowerpress.simulations.app import make_client_app
from flowerpress.compression.errors import ConfigError
from flowerpress.simulations.config import SimulationConfig

config = SimulationConfig.from_json({config!r})
task = {task!r}
if task is not None:
    beside = str(Path(__file__).with_name("{file}"))
    config = config.model_copy(update={{"task": beside + task}})
client = make_client_app(config)
'''

_FILE = "pressed_task.py"


def write_bundle(folder: Path, config: SimulationConfig) -> None:
    """Write the app; a task that is a file of the user's goes with it.

    Nothing in it names a folder of the server's: devices have their own, and codecs come with
    every instruction.

    Raises:
        ConfigError: the task's file cannot be read.
    """
    path, name = _file_of(config.task)
    own = {"data": None, "out": None, "uplink": "none", "downlink": "same"}
    there = config.model_copy(update=own if path is None else {**own, "task": _FILE})
    source = _CLIENT.format(config=there.to_json(), task=None if path is None else name, file=_FILE)
    (folder / _FILE).unlink(missing_ok=True)  # of an earlier run: it would go to these devices, too
    files = {"pressed_server.py": _SERVER, "pressed_client.py": source}
    if path is not None:
        try:
            files[_FILE] = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read the task {path}: {error}") from error
    write_app(
        folder,
        f"A run of flowerpress on {config.clients} devices",
        files,
        server="pressed_server:server",
        client="pressed_client:client",
    )


def _file_of(task: str) -> tuple[Path | None, str]:
    """Return the file of a task, and what stands behind it (``:Class``, or nothing)."""
    if task.endswith(".py"):
        return Path(task), ""
    file, colon, name = task.rpartition(":")
    return (Path(file), colon + name) if file.endswith(".py") else (None, "")
