"""Workers of a comparison: each a process that is fed with runs, and what they say shown."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
from pathlib import Path

from flowerpress.simulations.comparison.live import LiveCompare
from flowerpress.simulations.comparison.plan import Planned
from flowerpress.simulations.record import RoundRecord
from flowerpress.simulations.tracking import Tracking

__all__ = ["Tracked", "Worker"]


class Tracked:
    """Hands rounds to a tracking, each under its run's place in the comparison."""

    def __init__(self, root: Path, tracking: Tracking) -> None:
        self._root = root
        self._tracking = tracking
        self._lock = threading.Lock()

    def add(self, run: Planned, record: RoundRecord) -> None:
        """Hand on one round."""
        with self._lock:
            self._tracking.add(record, run.folder.relative_to(self._root).as_posix())


class Worker(threading.Thread):
    """Feeds one process with runs, one after the other, and shows their rounds."""

    def __init__(
        self,
        todo: queue.SimpleQueue[Planned],
        live: LiveCompare,
        tracked: Tracked,
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
                    [sys.executable, "-P", "-m", "flowerpress.simulations.comparison.process"],
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
