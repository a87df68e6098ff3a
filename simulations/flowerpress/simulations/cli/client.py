"""``flowerpress client``: a device's part of a deployment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["client"]


def client(
    server: Annotated[str, typer.Option(help="host:port of the server.")],
    ca: Annotated[Path, typer.Option(help="ca.pem, copied from the server.")],
    key: Annotated[Path, typer.Option(help="This device's own key, mode 0600.")],
    state: Annotated[
        Path, typer.Option(help="Folder for what has to outlive a restart; one for each device.")
    ],
    partition: Annotated[
        str, typer.Option(help="Which part of the task's data this device has: I/N, from 0/N.")
    ],
    data: Annotated[
        Path | None, typer.Option(help="Folder with the task's data; else $FLOWERPRESS_DATA.")
    ] = None,
    uplink_rate: Annotated[
        str | None,
        typer.Option(help="Bits a second of the uplink, such as 64k or 20M, for byte budgets."),
    ] = None,
    patience: Annotated[
        float | None,
        typer.Option(min=0, help="Seconds without an answer before giving up (default: never)."),
    ] = None,
) -> None:
    """Take part in whatever the server runs, until SIGTERM or Ctrl-C.

    Looks for the server again after every break. Ends with 0 when asked to stop, 2 where an option
    or a file is wrong, 69 where nobody answers (--patience), 75 where Flower's processes keep
    ending, 77 where a certificate or the key is refused, 130 on Ctrl-C.

    Example: flowerpress client --server server.example:8000 --ca ca.pem --key device-0.key
    --state state --partition 0/3
    """
    import signal
    import threading

    from flowerpress.simulations.cli.signals import handle
    from flowerpress.simulations.deploy.device import Device, run_device
    from flowerpress.simulations.deploy.exits import Exit
    from flowerpress.simulations.deploy.supernode import Member
    from flowerpress.simulations.deploy.tls import Address
    from flowerpress.simulations.fitted import visible

    node = _node(state, partition, uplink_rate)
    member = Member(Address.read(server), ca.expanduser(), key.expanduser(), node)
    stopped = threading.Event()
    numbers: list[int] = []

    def stop(number: int, _: object) -> None:
        numbers.append(number)
        stopped.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        handle(number, stop)
    folder = None if data is None else data.expanduser().absolute()
    device = Device(member, state.expanduser().absolute(), folder, patience)
    run_device(device, stopped, lambda line: print(visible(line), flush=True))
    print("stopped", flush=True)
    if signal.SIGINT in numbers:
        raise typer.Exit(Exit.INTERRUPTED)


def _node(state: Path, partition: str, uplink_rate: str | None) -> dict[str, str | int | float]:
    """Return the node's configuration, which ClientApps and press() read."""
    from flowerpress.compression import ConfigError

    number, _, of = partition.partition("/")
    if not (number.isdecimal() and of.isdecimal() and int(number) < int(of)):
        raise ConfigError(f"--partition {partition}: must be I/N with I from 0 to N - 1, as in 0/3")
    node: dict[str, str | int | float] = {
        "partition-id": int(number),
        "num-partitions": int(of),
        "state-folder": str(state.expanduser().absolute() / "journal"),
    }
    if uplink_rate is not None:
        from flowerpress.simulations.links import read_rate

        node["uplink-rate"] = read_rate(uplink_rate, "--uplink-rate")
    return node
