"""``flowerpress doctor``: whether this machine has what a run needs, and what to do if not."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from flowerpress.simulations.health import Check

__all__ = ["doctor"]


def doctor(
    quick: Annotated[
        bool, typer.Option("--quick", help="Leave out the checks that compile and train.")
    ] = False,
    server: Annotated[
        str | None, typer.Option(help="host:port of a deployment's server, to look at it too.")
    ] = None,
    ca: Annotated[Path | None, typer.Option(help="ca.pem, as the device has it.")] = None,
    key: Annotated[Path | None, typer.Option(help="The device's own key.")] = None,
    exchange: Annotated[
        str | None, typer.Option(help="host:port of the exchange, to measure the link, too.")
    ] = None,
    state: Annotated[Path | None, typer.Option(help="State folder of a device or server.")] = None,
    certs: Annotated[
        Path | None, typer.Option(help="A server's folder of certificates and keys.")
    ] = None,
) -> None:
    """Check versions, compiled kernels, caches, data folders and engines; say what to do.

    For a deployment also the way to the server: ports, certificates' names and dates, clocks,
    versions, keys, folders, the link's rate, before the first round. Ends with status 1 where
    something must be put right.

    Example: flowerpress doctor --quick --server server.example:8000 --exchange server.example:8001
    --ca ca.pem --key device.key
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from flowerpress.simulations.fitted import visible
    from flowerpress.simulations.health import Status
    from flowerpress.simulations.health.machine import checks

    console = Console()
    table = Table(show_header=False, box=None, pad_edge=False)
    for _ in range(2):
        table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    colours = {Status.OK: "green", Status.NOTE: "yellow", Status.FAILED: "red"}
    failed = False
    for check in chain(
        checks(quick=quick), _of_deployment(server, ca, key, exchange, state, certs)
    ):
        failed |= check.status is Status.FAILED
        # Text, not markup: advice such as flowerpress[simulation] must come out whole.
        mark = Text(check.status.value, style=colours[check.status])
        table.add_row(mark, Text(check.subject), Text(visible(check.finding)))
    console.print(table)
    if failed:
        sys.exit(1)


def _of_deployment(
    server: str | None,
    ca: Path | None,
    key: Path | None,
    exchange: str | None,
    state: Path | None,
    certs: Path | None,
) -> Iterator[Check]:
    if all(asked is None for asked in (server, key, exchange, state, certs)):
        return iter(())
    from flowerpress.simulations.deploy.tls import Address
    from flowerpress.simulations.health.deployment import Looked, deployment_checks

    at, beside = (None if text is None else Address.read(text) for text in (server, exchange))
    return deployment_checks(Looked(at, ca, key, beside, state, certs))
