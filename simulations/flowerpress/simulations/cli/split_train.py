"""``flowerpress split train``: one run with a network that is cut between clients and server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flowerpress.simulations.cli.options import (
    Clients,
    ClientWorkers,
    ConfigFile,
    DataFolder,
    Engine,
    Overrides,
    Overwrite,
    Partition,
    Rounds,
    RunFolder,
    Seed,
    Task,
    configure,
)
from flowerpress.simulations.cli.simulate import run_and_show

__all__ = ["split_train"]


def split_train(
    overrides: Overrides = None,
    config: ConfigFile = None,
    task: Task = None,
    data: DataFolder = None,
    rounds: Rounds = None,
    clients: Clients = None,
    partition: Partition = None,
    at: Annotated[
        str | None,
        typer.Option(
            help="The part of the network after which it is cut; 'input-stage2': the bottleneck "
            "stands for all parts up to stage2 (default: the task's place)."
        ),
    ] = None,
    mode: Annotated[
        str | None,
        typer.Option(
            help="vanilla (default): labels go up; u-shaped: labels and last layers stay."
        ),
    ] = None,
    sharing: Annotated[
        str | None,
        typer.Option(
            help="v1 (default): the server has a copy for each client; v2: clients share one."
        ),
    ] = None,
    bottleneck: Annotated[
        str | None,
        typer.Option(help="'entropic(channels=12)' (default), or none: features as they are."),
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(
            help="Codec of features without a bottleneck: none (default), fp16, int8, ..."
        ),
    ] = None,
    gradients: Annotated[
        str | None,
        typer.Option(
            help="Codec of gradients: 'int8(stochastic=true)' (default), none, "
            "'topk(density=0.1,values=qsgd)', ..."
        ),
    ] = None,
    beta: Annotated[
        float | None, typer.Option(help="Loss for each bit of an example (default 0.001).")
    ] = None,
    start: Annotated[
        Path | None, typer.Option(help="Folder of a cut network to start from, as distill writes.")
    ] = None,
    uplink: Annotated[
        str | None, typer.Option(help="Codec of the devices' weights (default: stc).")
    ] = None,
    downlink: Annotated[
        str | None, typer.Option(help="Codec of changes to them (default: as the uplink).")
    ] = None,
    seed: Seed = None,
    engine: Engine = None,
    workers: ClientWorkers = None,
    out: RunFolder = None,
    overwrite: Overwrite = False,
) -> None:
    """Train a network that is cut: features and gradients over gRPC, device weights by rounds.

    Clients hold the first layers and train them against a service in the server's process. All
    bytes are counted, in both directions: features, labels, gradients, tables and weights. The
    trained network is in the run's folder, ready for `split serve` and `split infer`.

    Example: flowerpress split train --task digits --beta 0.003 uplink=rd
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
        **{
            "split.at": at,
            "split.mode": mode,
            "split.sharing": sharing,
            "split.bottleneck": bottleneck,
            "split.features": features,
            "split.gradients": gradients,
            "split.beta": beta,
            "split.start": start.expanduser().absolute() if start else None,
        },
    )
    from flowerpress.simulations.config import SplitConfig

    if settings.split is None:
        settings = settings.model_copy(update={"split": SplitConfig()})
    run_and_show(settings, overwrite=overwrite)
