"""What an unfinished run's folder holds beside its rounds, so that it can go on.

    FOLDER/resume/config.json       the configuration, with which the folder alone suffices
    FOLDER/resume/server/           the server's state after the last rounds
    FOLDER/resume/clients/          what each client holds

It goes with the end of the run.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from flowerpress.compression.errors import ConfigError
from flowerpress.protos.store.disk import replace_file
from flowerpress.simulations.config import SimulationConfig
from flowerpress.simulations.record import ROUNDS, RoundRecord, RunReader, discard, rewind

__all__ = [
    "FREE",
    "begin",
    "can_go_on",
    "check_same",
    "clients_folder",
    "finished",
    "go_on",
    "recorded",
    "server_folder",
    "stored_config",
]

_FOLDER = "resume"
_CONFIG = "config.json"

FREE = frozenset({"out", "data", "workers", "threads", "engine", "checkpoint"})
"""Keys of a configuration that change nothing about what a run comes to."""


def server_folder(folder: Path) -> Path:
    """Return where the server's state is kept."""
    return folder / _FOLDER / "server"


def clients_folder(folder: Path) -> Path:
    """Return where the clients' states are kept."""
    return folder / _FOLDER / "clients"


def can_go_on(folder: Path) -> bool:
    """Whether the folder holds an unfinished run that can go on."""
    return (folder / _FOLDER / _CONFIG).is_file()


def begin(config: SimulationConfig) -> list[RoundRecord]:
    """Empty the folder of a run and write its configuration there, if it is to be able to go on.

    Returns the records that it has: none.

    Raises:
        ConfigError: the folder cannot be written to.
    """
    folder = _out(config)
    try:
        discard(folder)
        finished(folder)
        if not config.checkpoint:
            return []
        (folder / _FOLDER).mkdir(parents=True, exist_ok=True)
        path = folder / _FOLDER / _CONFIG
        replace_file(path, f"{config.to_json()}\n".encode())
    except OSError as error:
        raise ConfigError(f"{folder}: cannot write a run there: {error}") from error
    return []


def go_on(config: SimulationConfig) -> list[RoundRecord]:
    """Make the folder what it was after the last round whose state is there; return its records.

    The run may have died before its first round was over: then it begins anew, and that is the
    same run.

    Raises:
        ConfigError: it holds another run, or rounds are missing that its state knows of.
        StorageError: its state cannot be read.
    """
    from flowerpress.protos.store import Store
    from flowerpress.server.snapshots import part

    folder = _out(config)
    check_same(folder, stored_config(folder), config)
    last = -1
    if server_folder(folder).is_dir():
        with Store(server_folder(folder), sync=False) as store:
            found = store.load()
        if found is not None:
            last = int(part(found, "beside record").facts["round"])
    records = rewind(folder, last)
    if len(records) != last + 1:
        raise ConfigError(
            f"{folder / ROUNDS}: has lost some of the rounds 0 to {last} that the run's state "
            "knows of; begin anew with --overwrite"
        )
    return records


def recorded(folder: Path) -> list[RoundRecord]:
    """Return the rounds of a run that goes on; none of one that begins."""
    return RunReader(folder).poll() if can_go_on(folder) and (folder / ROUNDS).exists() else []


def stored_config(folder: Path) -> SimulationConfig:
    """Return the configuration of an unfinished run.

    Raises:
        ConfigError: there is none, and why that may be.
    """
    path = folder / _FOLDER / _CONFIG
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        what = (
            "holds a run that kept no state (checkpoint=false, or an older version)"
            if (folder / ROUNDS).is_file()
            else "holds no run"
        )
        raise ConfigError(f"{folder}: {what}, so it cannot go on; leave out --resume") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    return SimulationConfig.from_json(text)


def check_same(folder: Path, kept: SimulationConfig, now: SimulationConfig) -> None:
    """Refuse to go on with another configuration.

    Raises:
        ConfigError: it names the keys.
    """
    there, here = json.loads(kept.to_json()), json.loads(now.to_json())
    changed = sorted(key for key in here if key not in FREE and there.get(key) != here[key])
    if changed:
        raise ConfigError(
            f"{folder}: holds an unfinished run with another {', '.join(changed)}; give no "
            "settings to go on with its own, or choose another --out, or --overwrite"
        )


def finished(folder: Path) -> None:
    """Remove what a run needed to go on."""
    shutil.rmtree(folder / _FOLDER, ignore_errors=True)


def _out(config: SimulationConfig) -> Path:
    if config.out is None:
        raise ValueError("a run that can go on needs a configuration with `out`")
    return config.out
