"""A task with its data, divided among the clients: loaded once per process.

Server and clients of a simulation run in the same process, or several clients do; all of them
share one copy of the data.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from flowerpress.compression.errors import ConfigError
from flowerpress.simulations.config import SimulationConfig
from flowerpress.simulations.links import Links, read_links
from flowerpress.simulations.partition import Natural, Partition, read_scheme, split
from flowerpress.simulations.tasks import Data, Samples, Task, Training, load_task
from flowerpress.simulations.tasks.folders import VARIABLE

__all__ = ["Loaded", "load"]


@dataclass(frozen=True, eq=False)
class Loaded:
    """What a run works on. ``config`` has the task's own values where the user gave none."""

    config: SimulationConfig
    task: Task
    data: Data
    partition: Partition
    training: Training
    links: Links | None = None

    def samples(self, partition: int) -> Samples:
        """Return the training examples of one client."""
        return self.data.train.take(np.asarray(self.partition.train[partition], np.int64))


def load(config: SimulationConfig) -> Loaded:
    """Load task and data and divide them; what did not change since the last call is kept.

    Raises:
        ConfigError: the task, its data, the partition or the links are not usable.
        UnknownNameError: no such task, partitioner or kind of links.
    """
    # Runs that differ in codec or seed share the data; where the run is written matters not at all.
    return _load(
        config.model_copy(update={"out": None}).to_json(),
        _surroundings(config.task),
        _written(config.links or ""),
    )


def _surroundings(task: str) -> str:
    """Return what a task depends on beside the configuration: folders, and its own file."""
    path = task if task.endswith(".py") else task.rpartition(":")[0]
    return f"{os.environ.get(VARIABLE)} {_written(path)}"


def _written(name: str) -> str:
    path = Path(name)
    return f"{path.absolute()} {path.stat().st_mtime_ns if path.is_file() else None}"


@lru_cache(maxsize=1)
def _load(text: str, surroundings: str, written: str) -> Loaded:
    config = SimulationConfig.from_json(text)
    task, data = _task(config.task, config.data, surroundings)
    scheme = config.partition or task.partition
    # Natural partitions have as many clients as the data has owners, unless the user says less.
    clients = config.clients
    if clients is None and not isinstance(read_scheme(scheme), Natural):
        clients = task.clients
    partition = split(scheme, data, clients, config.seed)
    if config.deadline is not None and config.links is None:
        raise ConfigError(
            f"deadline = {config.deadline:g}: how long a message takes is only known with links, "
            "such as links=loguniform(low=64k,high=20M)"
        )
    links = read_links(config.links, len(partition), config.seed) if config.links else None
    changes = config.training.model_dump(exclude_none=True)
    resolved = config.model_copy(
        update={
            "clients": len(partition.train),
            "partition": scheme,
            "downlink": config.uplink if config.downlink == "same" else config.downlink,
        }
    )
    return Loaded(resolved, task, data, partition, replace(task.training, **changes), links)


@lru_cache(maxsize=1)
def _task(name: str, folder: Path | None, surroundings: str) -> tuple[Task, Data]:
    task = load_task(name, folder)
    return task, task.load()
