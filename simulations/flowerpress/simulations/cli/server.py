"""``flowerpress server``: a small deployment's server in one command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flowerpress.compression.errors import ConfigError
from flowerpress.simulations.cli.options import (
    ConfigFile,
    DataFolder,
    Downlink,
    Overrides,
    Overwrite,
    Partition,
    Rounds,
    Seed,
    Task,
    TensorBoard,
    Uplink,
    configure,
)

if TYPE_CHECKING:
    from flowerpress.simulations.config import SimulationConfig
    from flowerpress.simulations.deploy.serving import Closing, Site

__all__ = ["server"]


def server(
    overrides: Overrides = None,
    certs: Annotated[Path, typer.Option(help="Folder that flowerpress certs made.")] = Path(
        "certs"
    ),
    devices: Annotated[int, typer.Option(min=1, help="Devices to wait for.")] = 2,
    state: Annotated[Path, typer.Option(help="Folder for what has to outlive a restart.")] = Path(
        "server"
    ),
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "0.0.0.0",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of Flower's SuperLink.")] = 8000,
    carrier: Annotated[
        str,
        typer.Option(
            help="grpc: models and updates cross on a port of their own, and go on after a break. "
            "message: in Flower's messages, where only one port is open."
        ),
    ] = "grpc",
    exchange_port: Annotated[
        int, typer.Option(min=1, max=65535, help="Port of models and updates (carrier grpc).")
    ] = 8001,
    exchange_host: Annotated[
        str, typer.Option(help="Name of this machine for devices (default: the certificate's).")
    ] = "",
    app: Annotated[
        Path | None, typer.Option(help="Folder of a Flower app of your own, to run instead.")
    ] = None,
    config: ConfigFile = None,
    task: Task = None,
    data: DataFolder = None,
    rounds: Rounds = None,
    partition: Partition = None,
    uplink: Uplink = None,
    downlink: Downlink = None,
    seed: Seed = None,
    deadline: Annotated[
        float, typer.Option(min=1, help="Seconds after which a round goes on without the missing.")
    ] = 600.0,
    quorum: Annotated[
        str, typer.Option(help="Updates that a round needs to count: 2, or a share such as 0.5.")
    ] = "1",
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run (default: run in --state).")
    ] = None,
    overwrite: Overwrite = False,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with the unfinished run in --out, if there is one."),
    ] = False,
    tensorboard: TensorBoard = None,
) -> None:
    """Start a SuperLink with TLS and node keys, wait for the devices, train, and report.

    The run's folder is like that of flowerpress simulate, and so are the keys of its configuration.
    Ends with 0 when the run is finished, 2 where an option or a file is wrong, 70 where the run
    failed, 75 where the SuperLink ended by itself, 130 on Ctrl-C, 143 on SIGTERM.

    A server that was stopped or killed goes on with --resume and the same settings, and so do the
    devices, which keep their own state. Where there is no run yet, --resume begins one, so that a
    supervisor can always give it.

    Example: flowerpress server --certs certs --devices 3 --task digits --rounds 5 --uplink int8
    """
    import signal

    from flowerpress.compression import UnknownNameError
    from flowerpress.simulations.cli.signals import handle
    from flowerpress.simulations.deploy.exits import Exit
    from flowerpress.simulations.deploy.keys import Keys
    from flowerpress.simulations.deploy.serving import Closing, Site

    def terminate(*_: object) -> None:
        raise SystemExit(Exit.TERMINATED)

    handle(signal.SIGTERM, terminate)
    if carrier not in ("grpc", "message"):
        raise UnknownNameError("carrier", carrier, ("grpc", "message"))
    beside = exchange_port if carrier == "grpc" else None
    site = Site(Keys(certs.expanduser()), state, host, port, devices, beside, exchange_host)
    if app is not None:
        from flowerpress.simulations.deploy.serving import run_app

        run_app(site, app, lambda text: print(text, flush=True))
        return
    settings = configure(
        config,
        overrides,
        task=task,
        data=data,
        rounds=rounds,
        partition=partition,
        uplink=uplink,
        downlink=downlink,
        seed=seed,
        out=out,
    )
    if overwrite and resume:
        raise ConfigError("--overwrite begins anew and --resume goes on; leave one of them out")
    closing = Closing(deadline, _quorum(quorum, devices))
    _run_and_show(
        site, settings, closing, overwrite=overwrite, resume=resume, tensorboard=tensorboard
    )


def _quorum(text: str, devices: int) -> int | float:
    from flowerpress.server.quorum import Quorum

    try:
        least: int | float = int(text) if text.isdecimal() else float(text)
    except ValueError as error:
        raise ConfigError(f"--quorum {text}: must be a count, or a share such as 0.5") from error
    if Quorum(least).needed(devices) > devices:
        raise ConfigError(f"--quorum {text}: no round would count with {devices} devices")
    return least


def _run_and_show(
    site: Site,
    settings: SimulationConfig,
    closing: Closing,
    *,
    overwrite: bool,
    resume: bool,
    tensorboard: Path | None,
) -> None:
    from flowerpress.simulations.cli.simulate import show_run
    from flowerpress.simulations.codecs import codec_name
    from flowerpress.simulations.deploy.serving import prepared, run_configured
    from flowerpress.simulations.engines.errors import StoppedError
    from flowerpress.simulations.live import LiveRun
    from flowerpress.simulations.quiet import hush_flower
    from flowerpress.simulations.record import ROUNDS, RoundRecord
    from flowerpress.simulations.resuming import can_go_on
    from flowerpress.simulations.tracking import Tracking

    hush_flower()
    settings = prepared(site, settings, overwrite=overwrite, resume=resume)
    assert settings.out is not None
    resume = resume and (can_go_on(settings.out) or (settings.out / ROUNDS).exists())
    tracking = Tracking(tensorboard)
    down = settings.uplink if settings.downlink == "same" else settings.downlink
    live = LiveRun(
        settings.task,
        rounds=settings.rounds,
        clients=site.devices,
        uplink=codec_name(settings.uplink),
        downlink=codec_name(down),
    )

    def say(text: str) -> None:
        live.console.print(text, soft_wrap=True, markup=False, highlight=False)

    def told(record: RoundRecord) -> None:
        live.update(record)
        tracking.add(record)

    try:
        with live, tracking:
            folder = run_configured(site, settings, closing, told, say, resume=resume)
    except KeyboardInterrupt:
        raise StoppedError(settings.out) from None
    show_run(folder)
