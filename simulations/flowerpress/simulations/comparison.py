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
from flowerpress.simulations.live_compare import LiveCompare
from flowerpress.simulations.record import (
    ROUNDS,
    RoundRecord,
    Run,
    discard,
    is_finished,
    read_run,
)
from flowerpress.simulations.resuming import (
    FREE,
    can_go_on,
    check_same,
    finished,
    stored_config,
)
from flowerpress.simulations.tracking import Tracking

__all__ = [
    "ComparisonStoppedError",
    "Planned",
    "codec_variants",
    "plan_comparison",
    "plan_variants",
    "run_comparison",
    "runs_in",
]

ORDER = "comparison.json"
"""Names the runs of a comparison, the reference first: a folder's listing has no such order."""


class ComparisonStoppedError(StoppedError):
    """The user stopped a comparison (Ctrl-C). ``folder`` has the runs finished by then."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.args = (
            f"stopped; what was done is kept in {folder}, the same command goes on with it",
        )


@dataclass(frozen=True)
class Planned:
    """One run of a comparison: its label, and a configuration that names its folder."""

    label: str
    config: SimulationConfig
    folder: Path


def codec_variants(base: SimulationConfig, codecs: str) -> list[tuple[str, SimulationConfig]]:
    """Return ``base`` with each of some codecs, labelled by their names.

    Args:
        base: what all share.
        codecs: separated by commas outside parentheses; ``a/b`` is ``a`` up and ``b`` down; ``a``
            alone goes with the downlink of ``base``.

    Raises:
        ConfigError: no codec.
    """
    from flowerpress.simulations.codecs import absolute_codec, codec_name, up_and_down

    labels = [label.strip() for label in re.split(r",(?![^(]*\))", codecs) if label.strip()]
    if not labels:
        raise ConfigError("no codec to compare; name some, such as none,stc")
    variants = []
    for label in labels:
        up, down = up_and_down(label)
        codecs_of = {
            "uplink": absolute_codec(up),
            "downlink": absolute_codec(down) if down else base.downlink,
        }
        label = codec_name(up) + (f"/{codec_name(down)}" if down else "")
        variants.append((label, base.model_copy(update=codecs_of)))
    return variants


def plan_comparison(base: SimulationConfig, codecs: str, seeds: int, folder: Path) -> list[Planned]:
    """Return the runs of ``codec_variants`` with every seed; see ``plan_variants``."""
    return plan_variants(codec_variants(base, codecs), seeds, folder)


def plan_variants(
    variants: Sequence[tuple[str, SimulationConfig]], seeds: int, folder: Path
) -> list[Planned]:
    """Return the runs of every labelled configuration with every seed.

    Each goes to ``folder/<label>/seed-<n>``, ``seeds`` of them from the configuration's own on.

    Raises:
        ConfigError: a codec or cut that cannot be used, or a label given twice.
    """
    from flowerpress.simulations.codecs import check_codecs

    planned: list[Planned] = []
    for label, config in variants:
        check_codecs(config)
        slug = re.sub(r"[^\w.=-]+", "-", label).strip("-")
        for seed in range(config.seed, config.seed + seeds):
            place = (folder / slug / f"seed-{seed}").absolute()
            if any(p.folder == place for p in planned):
                raise ConfigError(f"{label!r} is given twice")
            change = {"seed": seed, "out": place}
            planned.append(Planned(label, config.model_copy(update=change), place))
    return planned


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
    _write_order(root, planned)
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
    tracked = _Tracked(root, tracking or Tracking(None))
    with live:
        for run in kept:
            records = read_run(run.folder).records
            live.keep(run.label, run.config.seed, records)
            for record in records:
                tracked.add(run, record)
        pool = [_Worker(todo, live, tracked, failures) for _ in range(min(workers, len(waiting)))]
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


def runs_in(folder: Path) -> list[Run]:
    """Return the runs of a comparison's folder, in the order and by the names it was made with.

    Raises:
        ConfigError: there are none.
    """
    runs: list[Run] = []
    listed = set()
    for name, label in _read_order(folder):
        listed.add(folder / name)
        if (folder / name / ROUNDS).is_file():
            runs.append(read_run(folder / name, label))
    # Runs that were put there by other means follow.
    for path in sorted(folder.glob(f"*/seed-*/{ROUNDS}")):
        if path.parent not in listed:
            runs.append(read_run(path.parent))
    if not runs:
        raise ConfigError(f"{folder}: holds neither a run nor a comparison of runs")
    return runs


def _write_order(folder: Path, planned: Sequence[Planned]) -> None:
    runs = [[run.folder.relative_to(folder).as_posix(), run.label] for run in planned]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ORDER).write_text(json.dumps({"format": 1, "runs": runs}, indent=1) + "\n")
    except OSError as error:
        raise ConfigError(f"{folder}: cannot write a comparison there: {error}") from error


def _read_order(folder: Path) -> list[tuple[str, str]]:
    """Return (folder, label) of every planned run; nothing where there is no such file."""
    path = folder / ORDER
    if not path.is_file():
        return []
    try:
        runs = json.loads(path.read_bytes())["runs"]
        pairs = [(str(name), str(label)) for name, label in runs]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); remove it and try again") from error
    if any(Path(name).is_absolute() or ".." in Path(name).parts for name, _ in pairs):
        raise ConfigError(f"{path}: names a folder outside the comparison")
    return pairs


class _Tracked:
    """Hands rounds to a tracking, each under its run's place in the comparison."""

    def __init__(self, root: Path, tracking: Tracking) -> None:
        self._root = root
        self._tracking = tracking
        self._lock = threading.Lock()

    def add(self, run: Planned, record: RoundRecord) -> None:
        """Hand on one round."""
        with self._lock:
            self._tracking.add(record, run.folder.relative_to(self._root).as_posix())


class _Worker(threading.Thread):
    """Feeds one process with runs, one after the other, and shows their rounds."""

    def __init__(
        self,
        todo: queue.SimpleQueue[Planned],
        live: LiveCompare,
        tracked: _Tracked,
        failures: list[str],
    ) -> None:
        super().__init__(daemon=True)
        self._todo = todo
        self._live = live
        self._tracked = tracked
        self._failures = failures
        self._process: subprocess.Popen[str] | None = None
        self._over = False
        self._lock = threading.Lock()

    def run(self) -> None:
        """Work until nothing is left to do."""
        while not self._over:
            try:
                planned = self._todo.get_nowait()
            except queue.Empty:
                break
            try:
                error = self._one(planned)
            except (ValueError, TypeError, KeyError, OSError) as broken:
                error = f"what its process said cannot be read: {broken}"
                self._kill()  # it may still talk of this run when the next one has begun
            if error and not self._over:
                self._failures.append(f"{planned.label} seed {planned.config.seed}: {error}")
                self._live.fail(planned.label, planned.config.seed, error)
        self.stop()

    def stop(self) -> None:
        """End the process and start no other; a run under way is left unfinished."""
        with self._lock:
            self._over = True
        self._kill()

    def _kill(self) -> None:
        with self._lock:
            if self._process is not None:
                self._process.kill()
                self._process.wait()

    def _running(self) -> subprocess.Popen[str] | None:
        """Return the process, a new one if need be; None once stopped."""
        with self._lock:
            if self._over:
                return None
            if self._process is None or self._process.poll() is not None:
                # -P: a file in the current folder must not hide a module of the same name.
                # A session of its own: Ctrl-C is for the parent, which stops it in good order.
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "flowerpress.simulations.comparing"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    start_new_session=True,
                )
            return self._process

    def _one(self, planned: Planned) -> str | None:
        """Run to the end; return what went wrong, if anything did."""
        process = self._running()
        if process is None:
            return None
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(planned.config.to_json() + "\n")
            process.stdin.flush()
        except OSError:  # it is dead already, and what it wrote tells nothing more
            return f"its process ended with status {process.wait()}"
        for line in process.stdout:
            said = json.loads(line)
            if "error" in said:
                return str(said["error"])
            if "done" in said:
                return None
            record = RoundRecord.from_json(said["record"], "a worker's record")
            self._live.update(planned.label, planned.config.seed, record)
            self._tracked.add(planned, record)
        return f"its process ended with status {process.wait()}"


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
