"""A task with its data, divided among the clients: loaded once per process.

Server and clients of a simulation run in the same process, or several clients do; all of them
share one copy of the data.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from flowerpress.simulations.config import SimulationConfig
from flowerpress.simulations.partition import Partition, split
from flowerpress.simulations.tasks import Data, Samples, Task, Training, load_task

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
    """Load task and data and divide them; the last result is kept for the next call.

    Raises:
        ConfigError: the task, its data or the partition is not usable.
        UnknownNameError: no such task or partitioner.
    """
    return _load(config.to_json())


@lru_cache(maxsize=1)
def _load(text: str) -> Loaded:
    config = SimulationConfig.from_json(text)
    task = load_task(config.task, config.data)
    scheme = config.partition or task.partition
    # Natural partitions have as many clients as the data has owners, unless the user says less.
    clients = config.clients
    if clients is None and not scheme.startswith("natural"):
        clients = task.clients
    data = task.load()
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
