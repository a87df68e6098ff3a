"""``flowerpress compare``: several codecs and seeds on one task, one chart."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    TensorBoard,
    configure,
)

if TYPE_CHECKING:
    from flowerpress.simulations.config import SimulationConfig

__all__ = ["compare", "read_variant"]

_CODECS = "none,int8,stc,fedzip"


def compare(
    overrides: Overrides = None,
    config: ConfigFile = None,
    codecs: Annotated[
        str | None,
        typer.Option(
            help="Codecs, policies (.toml) and plans (.json) to compare, the reference first; "
            "'a/b' is a up and b down (default, without --variant: none,int8,stc,fedzip).",
        ),
    ] = None,
    variant: Annotated[
        list[str] | None,
        typer.Option(
            metavar="'LABEL: KEY=VALUE ...'",
            help="A run with other settings, such as 'split: split.beta=0.01 uplink=rd'; again for "
            "more. They follow the codecs.",
            show_default=False,
        ),
    ] = None,
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
    tensorboard: TensorBoard = None,
    overwrite: Overwrite = False,
) -> None:
    """Compare codecs by accuracy against bytes in both directions, with the spread over seeds.

    Runs that are already in the folder are kept, so a comparison that was stopped goes on where it
    was, also within a run.

    Example: flowerpress compare --task mnist --codecs "none,int8,stc(density=0.005)"
    """

    def configured(words: list[str]) -> SimulationConfig:
        return configure(
            config,
            [*(overrides or []), *words],
            task=task,
            data=data,
            rounds=rounds,
            clients=clients,
            partition=partition,
            engine=engine,
        )

    settings = configured([])
    variants = [read_variant(text) for text in variant or []]
    import shlex
    import sys

    from flowerpress.simulations.cli.show import show_comparison
    from flowerpress.simulations.comparison.plan import codec_variants, plan_variants
    from flowerpress.simulations.comparison.report import write_comparison
    from flowerpress.simulations.comparison.running import run_comparison
    from flowerpress.simulations.quiet import hush_flower
    from flowerpress.simulations.tracking import Tracking

    hush_flower()
    folder = out or Path("runs") / f"compare-{Path(settings.task).stem}"
    labelled = [(label, configured(words)) for label, words in variants]
    if codecs or not variants:
        labelled = codec_variants(settings, codecs or _CODECS) + labelled
    planned = plan_variants(labelled, seeds, folder)
    with Tracking(tensorboard) as tracking:
        runs = run_comparison(planned, workers=workers, overwrite=overwrite, tracking=tracking)
    page = write_comparison(folder, runs, command=shlex.join(["flowerpress", *sys.argv[1:]]))
    show_comparison(runs, page)


def read_variant(text: str) -> tuple[str, list[str]]:
    """Return the label and the ``key=value`` words of ``label: key=value key=value``.

    Raises:
        ConfigError: it has no label or no setting.
    """
    import shlex

    from flowerpress.compression import ConfigError

    label, colon, rest = text.partition(":")
    try:
        words = shlex.split(rest)
    except ValueError as error:
        raise ConfigError(f"--variant {text!r}: {error}") from error
    if not (colon and label.strip() and words):
        raise ConfigError(
            f"--variant {text!r} is not 'label: key=value ...', such as "
            "'split: split.beta=0.01 uplink=rd'"
        )
    return label.strip(), words
