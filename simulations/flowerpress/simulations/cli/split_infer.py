"""``flowerpress split infer``: the device's part of a cut network, asking a service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flowerpress.simulations.cli.options import DataFolder
from flowerpress.simulations.cli.secrets import read_secret
from flowerpress.simulations.cli.split_serve import CutFolder

__all__ = ["split_infer"]


def split_infer(
    folder: CutFolder,
    address: Annotated[
        str, typer.Argument(metavar="ADDRESS", help="host:port of `flowerpress split serve`.")
    ],
    data: DataFolder = None,
    task: Annotated[
        str | None,
        typer.Option(help="The task, where it is a file that has moved (default: the folder's)."),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Examples of a question.")] = 1,
    samples: Annotated[
        int | None, typer.Option(min=1, help="At most so many test examples (default: all).")
    ] = None,
    token_file: Annotated[Path | None, typer.Option(help="File with the service's secret.")] = None,
    root_certificate: Annotated[
        Path | None, typer.Option(help="PEM certificate that vouches for the service: TLS.")
    ] = None,
    deadline: Annotated[float, typer.Option(help="Seconds until an answer must be there.")] = 30.0,
    link: Annotated[
        str, typer.Option(help="A link to estimate times and energy for; see simulate --help.")
    ] = "same(rate=1M,down=10M,latency=0.05)",
    threads: Annotated[int, typer.Option(min=1, help="Of torch.")] = 1,
) -> None:
    """Ask a service for predictions on the task's test examples, and judge them.

    Only the device's weights are read from FOLDER. Bytes and times are measured; what a small
    device on a slow link would take is an estimate and says so.

    Example: flowerpress split infer runs/mine/cut 192.0.2.7:8470 --batch 16 --token-file token
    --root-certificate ca.pem
    """
    import numpy as np
    import torch
    from rich.console import Console

    from flowerpress.simulations.links import read_links
    from flowerpress.simulations.split.serving import ask, estimated, loaded_cut

    torch.set_num_threads(threads)
    token = b"" if token_file is None else read_secret(token_file)
    root = None if root_certificate is None else read_secret(root_certificate)
    way = read_links(link, 1, 0)[0]
    loaded = loaded_cut(folder, data, task=task, server=False)
    asked = ask(
        folder,
        loaded,
        address,
        batch=batch,
        samples=samples,
        token=token,
        root_certificates=root,
        deadline=deadline,
    )
    each = 1 / asked.samples
    middle, late = 1e3 * np.percentile(asked.seconds, [50, 95])
    console = Console()
    for line in (
        f"{asked.samples} examples, {100 * asked.accuracy:.2f}% right",
        f"bytes of an example: {asked.sent * each:.1f} up ({asked.payload * each:.1f} of them "
        f"features), {asked.received * each:.1f} down",
        f"a question of {batch}: {middle:.2f} ms (median), {late:.2f} ms (95%)",
        f"an example on a Jetson TX2, {link}: {estimated(loaded, asked, way).describe()}",
    ):
        console.print(line, soft_wrap=True, markup=False, highlight=False)
