"""``flowerpress compare``: several codecs and seeds on one task, one chart."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flowerpress.simulations.cli.options import (
    Clients,
    ConfigFile,
    DataFolder,
    Engine,
    Overrides,
    Overwrite,
    Partition,
    Rounds,
    Task,
    configure,
)

__all__ = ["compare"]


def compare(
    overrides: Overrides = None,
    config: ConfigFile = None,
    codecs: Annotated[
        str,
        typer.Option(
            help="Codecs, policies (.toml) and plans (.json) to compare, the reference first; "
            "'a/b' is a up and b down.",
        ),
    ] = "none,int8,stc,fedzip",
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of each codec: 0, 1, ...")] = 3,
    task: Task = None,
    data: DataFolder = None,
    rounds: Rounds = None,
    clients: Clients = None,
    partition: Partition = None,
    engine: Engine = None,
    workers: Annotated[int, typer.Option(min=1, help="Runs at the same time.")] = 1,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the comparison (default: runs/compare-TASK).")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Compare codecs by accuracy against bytes in both directions, with the spread over seeds.

    Runs that are already in the folder are kept, so a comparison that was stopped goes on where it
    was.

    Example: flowerpress compare --task mnist --codecs "none,int8,stc(density=0.005)"
    """
    settings = configure(
        config,
        overrides,
        task=task,
        data=data,
        rounds=rounds,
        clients=clients,
        partition=partition,
        engine=engine,
    )
    import shlex
    import sys

    from flowerpress.simulations.cli.show import show_comparison
    from flowerpress.simulations.comparison import plan_comparison, run_comparison
    from flowerpress.simulations.quiet import hush_flower
    from flowerpress.simulations.report import write_comparison

    hush_flower()
    folder = out or Path("runs") / f"compare-{Path(settings.task).stem}"
    planned = plan_comparison(settings, codecs, seeds, folder)
    runs = run_comparison(planned, workers=workers, overwrite=overwrite)
    page = write_comparison(folder, runs, command=shlex.join(["flowerpress", *sys.argv[1:]]))
    show_comparison(runs, page)
