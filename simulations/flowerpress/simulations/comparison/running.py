"""The runs of a comparison, several at a time, and what is kept of an earlier attempt."""

from __future__ import annotations

import json
import queue
from collections.abc import Sequence
from pathlib import Path

from flowerpress.compression.errors import ConfigError
from flowerpress.simulations.comparison.folder import write_order
from flowerpress.simulations.comparison.live import LiveCompare
from flowerpress.simulations.comparison.plan import Planned
from flowerpress.simulations.comparison.worker import Tracked, Worker
from flowerpress.simulations.config import SimulationConfig
from flowerpress.simulations.engines.errors import EngineError, StoppedError
from flowerpress.simulations.record import Run, discard, is_finished, read_run
from flowerpress.simulations.resuming import (
    FREE,
    can_go_on,
    check_same,
    finished,
    stored_config,
)
from flowerpress.simulations.tracking import Tracking

__all__ = ["ComparisonStoppedError", "run_comparison"]


class ComparisonStoppedError(StoppedError):
    """The user stopped a comparison (Ctrl-C). ``folder`` has the runs finished by then."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.args = (
            f"stopped; what was done is kept in {folder}, the same command goes on with it",
        )


def run_comparison(
    planned: Sequence[Planned],
    *,
    workers: int = 1,
    overwrite: bool = False,
    tracking: Tracking | None = None,
) -> list[Run]:
    """Run what is not finished yet, ``workers`` runs at a time, and return all runs in order.

    ``tracking`` is told of every round, those of runs that are kept first.

    Raises:
        ConfigError: task, data or partition cannot be used, or a folder holds a finished run of
            another configuration. Nothing was started or removed then.
        EngineError: a run failed; the others were finished first.
        ComparisonStoppedError: Ctrl-C; finished runs are kept, and the others can go on.
    """
    from flowerpress.simulations.loaded import load

    # Here rather than once in each run: what is wrong with one would be wrong with all of them.
    resolved = load(planned[0].config).config
    kept = [] if overwrite else [run for run in planned if is_finished(run.folder)]
    for run in kept:
        _check_same(run, resolved)
    if not overwrite:
        for run in planned:
            if run not in kept and can_go_on(run.folder):
                check_same(run.folder, stored_config(run.folder), run.config)
    if overwrite:
        for run in planned:
            discard(run.folder)
            finished(run.folder)
    root = planned[0].folder.parent.parent
    write_order(root, planned)
    todo: queue.SimpleQueue[Planned] = queue.SimpleQueue()
    waiting = [run for run in planned if run not in kept]
    for run in waiting:
        todo.put(run)
    live = LiveCompare(
        planned[0].config.task,
        [(run.label, run.config.seed) for run in planned],
        rounds=planned[0].config.rounds,
    )
    failures: list[str] = []
    tracked = Tracked(root, tracking or Tracking(None))
    with live:
        for run in kept:
            records = read_run(run.folder).records
            live.keep(run.label, run.config.seed, records)
            for record in records:
                tracked.add(run, record)
        pool = [Worker(todo, live, tracked, failures) for _ in range(min(workers, len(waiting)))]
        try:
            for worker in pool:
                worker.start()
            for worker in pool:
                worker.join()
        except KeyboardInterrupt:
            raise ComparisonStoppedError(root) from None
        finally:
            for worker in pool:
                worker.stop()
    if failures:
        raise EngineError("\n".join(failures))
    return [read_run(run.folder, run.label) for run in planned]


def _check_same(planned: Planned, resolved: SimulationConfig) -> None:
    """Refuse to take a finished run of another configuration for this one.

    ``resolved`` is the configuration of one of the runs with the task's own values filled in,
    which are the same for all of them.
    """
    before = read_run(planned.folder).config
    up, down = planned.config.uplink, planned.config.downlink
    change = {
        "clients": resolved.clients,
        "partition": resolved.partition,
        "downlink": up if down == "same" else down,
    }
    now = json.loads(planned.config.model_copy(update=change).to_json())
    changed = [key for key in now if key not in FREE and before.get(key) != now[key]]
    if changed:
        raise ConfigError(
            f"{planned.folder}: holds a run with another {', '.join(sorted(changed))}; "
            "choose another --out, or --overwrite"
        )
