"""``flowerpress simulate``: one federated run on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from flowerpress.simulations.cli.options import (
    Clients,
    ClientWorkers,
    ConfigFile,
    DataFolder,
    Downlink,
    Engine,
    Overrides,
    Overwrite,
    Partition,
    Resume,
    Rounds,
    RunFolder,
    Seed,
    Task,
    TensorBoard,
    Uplink,
    configure,
)

if TYPE_CHECKING:
    from pathlib import Path

    from flowerpress.simulations.config import SimulationConfig
    from flowerpress.simulations.metrics import RoundRecord

__all__ = ["run_and_show", "show_run", "simulate"]


def simulate(
    overrides: Overrides = None,
    config: ConfigFile = None,
    task: Task = None,
    data: DataFolder = None,
    rounds: Rounds = None,
    clients: Clients = None,
    partition: Partition = None,
    uplink: Uplink = None,
    downlink: Downlink = None,
    seed: Seed = None,
    engine: Engine = None,
    workers: ClientWorkers = None,
    out: RunFolder = None,
    tensorboard: TensorBoard = None,
    overwrite: Overwrite = False,
    resume: Resume = False,
) -> None:
    """Train a model with federated clients, compressed both ways, and report bytes and accuracy.

    A run that was stopped or killed goes on where it was, to the same bit, with --resume and its
    folder; nothing else need be said again.

    Example: flowerpress simulate --task digits --uplink "stc(density=0.02)" training.lr=0.05
    """
    settings = configure(
        config,
        overrides,
        task=task,
        data=data,
        rounds=rounds,
        clients=clients,
        partition=partition,
        uplink=uplink,
        downlink=downlink,
        seed=seed,
        engine=engine,
        workers=workers,
        out=out,
    )
    if resume:
        from flowerpress.simulations.cli.resumed import resumed

        settings = resumed(settings)
    run_and_show(settings, overwrite=overwrite, tensorboard=tensorboard, resume=resume)


def run_and_show(
    settings: SimulationConfig,
    *,
    overwrite: bool,
    tensorboard: Path | None = None,
    resume: bool = False,
) -> None:
    """Run a simulation with its live display, then write and show what came of it."""
    from flowerpress.compression import ConfigError
    from flowerpress.simulations.checking import check_run
    from flowerpress.simulations.codecs import codec_name
    from flowerpress.simulations.engines import run
    from flowerpress.simulations.live import LiveRun
    from flowerpress.simulations.quiet import hush_flower
    from flowerpress.simulations.record import discard, is_finished
    from flowerpress.simulations.resuming import can_go_on
    from flowerpress.simulations.tracking import Tracking

    if overwrite and resume:
        raise ConfigError("--overwrite begins anew and --resume goes on; leave one of them out")
    if settings.out is not None and not overwrite:
        if is_finished(settings.out):
            raise ConfigError(
                f"{settings.out}: holds a finished run; another --out, or --overwrite"
            )
        if can_go_on(settings.out) and not resume:
            raise ConfigError(
                f"{settings.out}: holds an unfinished run; --resume goes on with it, --overwrite "
                "begins anew"
            )
    # Whatever can be wrong is found before a run that is to be overwritten is gone.
    hush_flower()
    down = settings.uplink if settings.downlink == "same" else settings.downlink
    loaded = check_run(settings)
    tracking = Tracking(tensorboard)
    if overwrite and settings.out is not None:
        discard(settings.out)
    live = LiveRun(
        settings.task,
        rounds=settings.rounds,
        clients=loaded.config.clients,
        uplink=codec_name(settings.uplink),
        downlink=codec_name(down),
    )

    def told(record: RoundRecord) -> None:
        live.update(record)
        tracking.add(record)

    with live, tracking:
        folder = run(settings, told, resume=resume)
    show_run(folder)


def show_run(folder: Path) -> None:
    """Write a run's report and show its last rounds."""
    from rich.console import Console

    from flowerpress.simulations.record import read_run
    from flowerpress.simulations.report import write_report
    from flowerpress.simulations.tables import run_table

    page = write_report(folder)
    console = Console()
    console.print(run_table(read_run(folder), last=5))
    console.print(f"Report: {page}", soft_wrap=True, markup=False, highlight=False)
