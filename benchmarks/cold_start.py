"""What the first round costs a device's fresh process: seconds, processor seconds, memory.

python benchmarks/cold_start.py
python benchmarks/cold_start.py --runs 5 --codec rd

Flower starts a process for each message, so a device pays this in every round. Four stages, each of
them in processes of their own and with all before it: Flower alone; the client mod and an open
journal; a round of a model of a million weights, with kernels that were compiled and kept before;
and the same with none kept.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

__all__ = ["STAGES", "measured"]

STAGES = {
    "flower": "Flower alone",
    "journal": "the mod, and a journal opened",
    "round": "one round, kernels kept",
    "compiled": "one round, no kernels kept",
}

_CLIENT = Path(__file__).with_name("cold_client.py")


def measured(stage: str, codec: str, kernels: Path) -> dict[str, Any]:
    """Run one process through a stage.

    Args:
        stage: one of ``STAGES``.
        codec: of the update.
        kernels: the folder of compiled kernels.

    Returns:
        seconds ``wall`` and ``cpu``, the most memory ``mib``, and which large packages it loaded.
    """
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "NUMBA_CACHE_DIR": str(kernels), "OMP_NUM_THREADS": "1"}
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, str(_CLIENT), stage.replace("compiled", "round"), folder, codec],
            capture_output=True,
            text=True,
            env=environment,
            check=True,
        )
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return {"wall": time.monotonic() - started, **found}


def main() -> int:
    """Read the command line, and measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=3, help="processes for each stage")
    parser.add_argument("--codec", default="stc", help="of the update")
    options = parser.parse_args()
    table = Table(box=SIMPLE, title=f"median of {options.runs} processes, uplink {options.codec}")
    for column in ("stage", "seconds", "processor seconds", "MiB", "loaded"):
        table.add_column(column, justify="left" if column in ("stage", "loaded") else "right")
    with tempfile.TemporaryDirectory() as kernels:
        kept = Path(kernels) / "kept"
        measured("round", options.codec, kept)
        for stage, name in STAGES.items():
            runs = [
                measured(
                    stage, options.codec, Path(kernels) / str(n) if stage == "compiled" else kept
                )
                for n in range(1 if stage == "compiled" else options.runs)
            ]
            middle = {k: statistics.median(r[k] for r in runs) for k in ("wall", "cpu", "mib")}
            table.add_row(
                name,
                f"{middle['wall']:.2f}",
                f"{middle['cpu']:.2f}",
                f"{middle['mib']:.0f}",
                ", ".join(runs[0]["loaded"]) or "neither torch nor numba",
            )
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
