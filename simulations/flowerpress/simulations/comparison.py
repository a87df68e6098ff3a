"""Several runs of one task: which, in which processes, and what is kept of an earlier attempt."""

from __future__ import annotations

import json
import queue
import re
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flowerpress.compression.errors import ConfigError
from flowerpress.simulations.config import SimulationConfig
from flowerpress.simulations.engines.errors import EngineError, StoppedError
from flowerpress.simulations.live import LiveCompare
from flowerpress.simulations.record import RoundRecord, Run, discard, is_finished, read_run

__all__ = ["Planned", "plan_comparison", "run_comparison", "runs_in"]


@dataclass(frozen=True)
class Planned:
    """One run of a comparison: its label, and a configuration that names its folder."""

    label: str
    config: SimulationConfig
    folder: Path


def plan_comparison(base: SimulationConfig, codecs: str, seeds: int, folder: Path) -> list[Planned]:
    """Return the runs of every codec with every seed, each in ``folder/<codec>/seed-<n>``.

    Args:
        base: what all runs share.
        codecs: separated by commas outside parentheses; ``a/b`` is ``a`` up and ``b`` down.
        seeds: how many, from ``base.seed`` on.
        folder: of the comparison.

    Raises:
        ConfigError: no codec, an unknown one, or one given twice.
    """
    from flowerpress.compression import preset

    labels = [label.strip() for label in re.split(r",(?![^(]*\))", codecs) if label.strip()]
    if not labels:
        raise ConfigError("no codec to compare; name some, such as none,stc")
    planned: list[Planned] = []
    for label in labels:
        up, _, down = (part.strip() for part in label.partition("/"))
        preset(up)
        preset(down or up)
        slug = re.sub(r"[^\w.=-]+", "-", label).strip("-")
        for seed in range(base.seed, base.seed + seeds):
            place = (folder / slug / f"seed-{seed}").absolute()
            if any(p.folder == place for p in planned):
                raise ConfigError(f"{label!r} is given twice")
            change = {"uplink": up, "downlink": down or "same", "seed": seed, "out": place}
            planned.append(Planned(label, base.model_copy(update=change), place))
    return planned


def run_comparison(
    planned: Sequence[Planned], *, workers: int = 1, overwrite: bool = False
) -> list[Run]:
    """Run what is not finished yet, ``workers`` runs at a time, and return all runs in order.

    Raises:
        ConfigError: a folder holds a finished run of another configuration.
        EngineError: a run failed; the others were finished first.
        StoppedError: Ctrl-C; finished runs are kept.
    """
    todo: queue.SimpleQueue[Planned] = queue.SimpleQueue()
    waiting = 0
    for run in planned:
        if overwrite:
            discard(run.folder)
        if is_finished(run.folder):
            _check_same(run)
        else:
            todo.put(run)
            waiting += 1
    live = LiveCompare(
        planned[0].config.task,
        [(run.label, run.config.seed) for run in planned],
        rounds=planned[0].config.rounds,
    )
    failures: list[str] = []
    with live:
        for run in planned:
            if is_finished(run.folder):
                for record in read_run(run.folder).records:
                    live.update(run.label, run.config.seed, record)
        pool = [_Worker(todo, live, failures) for _ in range(min(workers, waiting))]
        try:
            for worker in pool:
                worker.start()
            for worker in pool:
                worker.join()
        except KeyboardInterrupt:
            raise StoppedError(planned[0].folder.parent.parent) from None
        finally:
            for worker in pool:
                worker.stop()
    if failures:
        raise EngineError("\n".join(failures))
    return [read_run(run.folder, run.label) for run in planned]


def runs_in(folder: Path) -> list[Run]:
    """Return the runs of a comparison's folder, the reference first if it is called ``none``.

    Raises:
        ConfigError: there are none.
    """
    runs = [read_run(path.parent) for path in sorted(folder.glob("*/seed-*/rounds.jsonl"))]
    if not runs:
        raise ConfigError(f"{folder}: holds neither a run nor a comparison of runs")
    return sorted(runs, key=lambda run: run.label != "none")


class _Worker(threading.Thread):
    """Feeds one process with runs, one after the other, and shows their rounds."""

    def __init__(
        self, todo: queue.SimpleQueue[Planned], live: LiveCompare, failures: list[str]
    ) -> None:
        super().__init__(daemon=True)
        self._todo = todo
        self._live = live
        self._failures = failures
        self._process: subprocess.Popen[str] | None = None

    def run(self) -> None:
        """Work until nothing is left to do."""
        while True:
            try:
                planned = self._todo.get_nowait()
            except queue.Empty:
                break
            error = self._one(planned)
            if error:
                self._failures.append(f"{planned.label} seed {planned.config.seed}: {error}")
                self._live.fail(planned.label, planned.config.seed, error)
        self.stop()

    def stop(self) -> None:
        """End the process; a run under way is left unfinished."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _one(self, planned: Planned) -> str | None:
        """Run to the end; return what went wrong, if anything did."""
        process = self._process
        if process is None or process.poll() is not None:
            process = self._process = subprocess.Popen(
                [sys.executable, "-m", "flowerpress.simulations.comparing"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(planned.config.to_json().replace("\n", " ") + "\n")
        process.stdin.flush()
        for line in process.stdout:
            said = json.loads(line)
            if "error" in said:
                return str(said["error"])
            if "done" in said:
                return None
            record = RoundRecord.from_json(said["record"], "a worker's record")
            self._live.update(planned.label, planned.config.seed, record)
        return f"its process ended with status {process.wait()}"


def _check_same(planned: Planned) -> None:
    """Refuse to take a finished run of another configuration for this one."""
    before = read_run(planned.folder).config
    now = json.loads(planned.config.to_json())
    free = {"out", "data", "workers", "engine"}
    changed = [k for k in now if k not in free and k in before and before[k] != now[k]]
    if changed:
        raise ConfigError(
            f"{planned.folder}: holds a run with another {', '.join(sorted(changed))}; "
            "choose another --out, or --overwrite"
        )
