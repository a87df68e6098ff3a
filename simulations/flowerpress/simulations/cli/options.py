"""Options that several commands share, and how those of runs become a configuration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from flowerpress.simulations.config import SimulationConfig

__all__ = [
    "ClientWorkers",
    "Clients",
    "ConfigFile",
    "DataFolder",
    "Downlink",
    "Engine",
    "Force",
    "Overrides",
    "Overwrite",
    "Partition",
    "Resume",
    "Rounds",
    "RunFolder",
    "Seed",
    "Task",
    "TensorBoard",
    "Uplink",
    "configure",
]

Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...",
        help="Any key of the configuration, such as training.lr=0.05 or strategy=fedadam.",
        show_default=False,
    ),
]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", "-c", help="A TOML file with the same keys.")
]
Task = Annotated[
    str | None,
    typer.Option(
        help="digits (default), mnist, cifar10, cifar10-wide, shakespeare, "
        "shakespeare-transformer, or ./my_task.py:MyTask."
    ),
]
DataFolder = Annotated[
    Path | None,
    typer.Option("--data", help="Folder with the task's data; else $FLOWERPRESS_DATA."),
]
Rounds = Annotated[int | None, typer.Option(help="Rounds of training (default 20).")]
Clients = Annotated[int | None, typer.Option(help="Number of clients (default: the task's).")]
Partition = Annotated[
    str | None,
    typer.Option(
        help="iid, 'dirichlet(alpha=0.5)', 'shards(per_client=2)' or natural (default: the task's)."
    ),
]
Engine = Annotated[
    str | None, typer.Option(help="inline (default) or ray (Flower's Simulation Engine).")
]
Uplink = Annotated[
    str | None,
    typer.Option(
        help="Codec of client updates: stc (default), none, int8, 'topk(density=0.02)', ..., "
        "a policy.toml or a plan.json."
    ),
]
Downlink = Annotated[
    str | None, typer.Option(help="Codec of model changes (default: as the uplink).")
]
Seed = Annotated[int | None, typer.Option(help="Root of all randomness (default 0).")]
ClientWorkers = Annotated[
    int | None, typer.Option(help="Processes that train clients (inline engine; default 1).")
]
RunFolder = Annotated[
    Path | None, typer.Option(help="Folder of the run (default: a new one in runs/).")
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the unfinished run in --out.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a finished run in --out.")]
TensorBoard = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Also write each round for tensorboard --logdir FOLDER; needs the extra 'tracking'.",
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace the file if it is there already.")]


def configure(
    file: Path | None, overrides: list[str] | None, **options: object
) -> SimulationConfig:
    """Return the configuration: the file, then ``key=value`` words, then options that were given.

    Raises:
        ConfigError: an unknown key or a value that is not allowed.
    """
    import json

    from flowerpress.simulations.codecs import with_absolute_codecs
    from flowerpress.simulations.config import load_config
    from flowerpress.simulations.links import absolute

    words = list(overrides or [])
    for key, value in options.items():
        if value is not None:
            # As a JSON string, which is a TOML one too, text needs no guessing.
            text = str(value) if isinstance(value, int | float) else json.dumps(str(value))
            words.append(f"{key}={text}")
    settings = load_config(file, words)
    if settings.data is not None:
        # The same folder is the same data, from whatever folder the command is given.
        settings = settings.model_copy(update={"data": settings.data.expanduser().absolute()})
    settings = with_absolute_codecs(settings)
    if settings.links is not None:
        settings = settings.model_copy(update={"links": absolute(settings.links)})
    return settings
