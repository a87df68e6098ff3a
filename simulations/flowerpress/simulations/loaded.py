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

from flowerpress.simulations.config import SimulationConfig
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

    def samples(self, partition: int) -> Samples:
        """Return the training examples of one client."""
        return self.data.train.take(np.asarray(self.partition.train[partition], np.int64))


def load(config: SimulationConfig) -> Loaded:
    """Load task and data and divide them; what did not change since the last call is kept.

    Raises:
        ConfigError: the task, its data or the partition is not usable.
        UnknownNameError: no such task or partitioner.
    """
    # Runs that differ in codec or seed share the data; where the run is written matters not at all.
    return _load(config.model_copy(update={"out": None}).to_json(), _surroundings(config.task))


def _surroundings(task: str) -> str:
    """Return what a task depends on beside the configuration: folders, and its own file."""
    path = Path(task if task.endswith(".py") else task.rpartition(":")[0])
    written = path.stat().st_mtime_ns if path.is_file() else None
    return f"{os.environ.get(VARIABLE)} {path.absolute()} {written}"


@lru_cache(maxsize=1)
def _load(text: str, surroundings: str) -> Loaded:
    config = SimulationConfig.from_json(text)
    task, data = _task(config.task, config.data, surroundings)
    scheme = config.partition or task.partition
    # Natural partitions have as many clients as the data has owners, unless the user says less.
    clients = config.clients
    if clients is None and not isinstance(read_scheme(scheme), Natural):
        clients = task.clients
    partition = split(scheme, data, clients, config.seed)
    changes = config.training.model_dump(exclude_none=True)
    resolved = config.model_copy(
        update={
            "clients": len(partition.train),
            "partition": scheme,
            "downlink": config.uplink if config.downlink == "same" else config.downlink,
        }
    )
    return Loaded(resolved, task, data, partition, replace(task.training, **changes))


@lru_cache(maxsize=1)
def _task(name: str, folder: Path | None, surroundings: str) -> tuple[Task, Data]:
    task = load_task(name, folder)
    return task, task.load()
