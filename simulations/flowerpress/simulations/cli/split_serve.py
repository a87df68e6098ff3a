"""``flowerpress split serve``: the server's part of a cut network, for devices."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flowerpress.simulations.cli.options import DataFolder
from flowerpress.simulations.cli.secrets import read_secret

if TYPE_CHECKING:
    from flowerpress.simulations.split.serving import Loaded

__all__ = ["CutFolder", "split_serve"]

CutFolder = Annotated[
    Path,
    typer.Argument(metavar="FOLDER", help="Cut network, as split train and distill write one."),
]


def split_serve(
    folder: CutFolder,
    data: DataFolder = None,
    task: Annotated[
        str | None,
        typer.Option(help="The task, where it is a file that has moved (default: the folder's)."),
    ] = None,
    address: Annotated[
        str, typer.Option(help="host:port to listen on; port 0 takes a free one.")
    ] = "127.0.0.1:8470",
    token_file: Annotated[
        Path | None, typer.Option(help="File with a secret that devices have to know.")
    ] = None,
    certificate: Annotated[
        Path | None, typer.Option(help="PEM chain of certificates, for TLS; needs --key.")
    ] = None,
    key: Annotated[Path | None, typer.Option(help="PEM private key of the certificate.")] = None,
    features: Annotated[
        str, typer.Option(help="Codec of features where the bottleneck has no tables.")
    ] = "none",
    most_clients: Annotated[
        int, typer.Option(min=1, help="Devices that may be connected at the same time.")
    ] = 256,
    largest: Annotated[
        int, typer.Option(min=1024, help="Bytes of a message that devices may send.")
    ] = 16 << 20,
    threads: Annotated[int, typer.Option(min=1, help="Of torch.")] = 1,
) -> None:
    """Answer devices with predictions, until Ctrl-C or SIGTERM.

    A device runs the first layers and sends coded features; this runs the rest and answers with the
    scores. Without --certificate nothing is encrypted: listen beyond this machine only with it, or
    behind something that has TLS.

    Example: flowerpress split serve runs/mine/cut --address 0.0.0.0:8470 --certificate chain.pem
    --key key.pem --token-file token
    """
    if (certificate is None) != (key is None):
        raise typer.BadParameter("--certificate and --key come together")
    import signal
    import threading

    import torch
    from rich.console import Console

    from flowerpress.compression import ConfigError
    from flowerpress.server.split import SplitLimits
    from flowerpress.simulations.split.serving import loaded_cut, predictions

    torch.set_num_threads(threads)
    pair = None
    if certificate is not None and key is not None:
        pair = read_secret(key), read_secret(certificate)
    token = b"" if token_file is None else read_secret(token_file)
    loaded = loaded_cut(folder, data, task=task)
    limits = SplitLimits(largest=largest, clients=most_clients)
    service = predictions(folder, loaded, token=token, features=features, limits=limits)
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    try:
        port = service.serve(address, certificates=pair)
    except OSError as error:
        raise ConfigError(f"cannot listen on {address}: {error}") from error
    console = Console()
    host = address.rpartition(":")[0]
    secured = "TLS" if pair else "no TLS"
    console.print(f"Listening on {host}:{port} ({secured})", soft_wrap=True, highlight=False)
    console.print(_told(loaded), soft_wrap=True, markup=False, highlight=False)
    try:
        stopped.wait()
    finally:
        service.stop()
    console.print("Stopped.")


def _told(loaded: Loaded) -> str:
    recipe = loaded.recipe
    return f"{recipe.task}, cut at {recipe.at}, {recipe.bottleneck}, {recipe.mode}"
