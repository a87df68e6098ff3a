"""``flowerpress split compare``: accuracy against bytes across a cut, beside the rivals."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flowerpress.simulations.cli.options import DataFolder, Task

if TYPE_CHECKING:
    from flowerpress.simulations.split.teacher import Tick

__all__ = ["split_compare"]


def split_compare(
    task: Task = "digits",
    data: DataFolder = None,
    at: Annotated[
        str | None,
        typer.Option(
            help="The part of the network after which it is cut; 'input-stage2': learned "
            "bottlenecks take the place of all parts up to stage2 (default: the task's)."
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds.")] = 3,
    first_seed: Annotated[int, typer.Option(min=0, help="The first of them.")] = 0,
    betas: Annotated[
        str, typer.Option(help="What a bit may cost: a student for each, with a common start.")
    ] = "3e-5,1e-4,3e-4,1e-3,3e-3",
    channels: Annotated[int, typer.Option(min=1, help="Of the learned latent.")] = 12,
    epochs: Annotated[int, typer.Option(min=0, help="That a bottleneck learns.")] = 8,
    tail_epochs: Annotated[int, typer.Option(min=0, help="That the server's side is tuned.")] = 2,
    joint_epochs: Annotated[
        int, typer.Option(min=0, help="That both sides then learn on together.")
    ] = 12,
    picture_epochs: Annotated[
        int, typer.Option(min=0, help="That the network is trained on pictures of low quality.")
    ] = 12,
    lr: Annotated[float, typer.Option(help="Adam's first step.")] = 3e-3,
    teacher_epochs: Annotated[int, typer.Option(min=0, help="Of the whole network.")] = 10,
    teacher_lr: Annotated[
        float | None, typer.Option(help="The whole network's highest learning rate.")
    ] = None,
    augment: Annotated[
        bool, typer.Option(help="Images are mirrored and shifted, for all methods alike.")
    ] = True,
    reductions: Annotated[str, typer.Option(help="Channels of channel reduction.")] = "1,2,4,8",
    codes: Annotated[str, typer.Option(help="Codes of vector quantization.")] = "64,256,1024",
    qualities: Annotated[
        str, typer.Option(help="Of pictures, 1 to 100.")
    ] = "1,5,10,20,30,50,70,85,95",
    tuned_qualities: Annotated[
        str, typer.Option(help="Those that the network is also trained on.")
    ] = "1,10,30,60",
    methods: Annotated[
        str | None,
        typer.Option(
            help="Which to measure, separated by semicolons: entropic; reduction; 'reduction, "
            "packed'; vq; pca; plain; features; jpeg; webp; 'jpeg, tuned'; 'webp, tuned'; teacher; "
            "'teacher, tuned' "
            "(default: all)."
        ),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Examples that share a stream.")] = 100,
    batch_size: Annotated[int, typer.Option(min=1, help="Examples of a training step.")] = 64,
    examples: Annotated[
        int | None, typer.Option(min=1, help="At most so many to learn from (default: all).")
    ] = None,
    link: Annotated[
        str, typer.Option(help="A link to estimate times and energy for; see simulate --help.")
    ] = "same(rate=1M,down=10M,latency=0.05)",
    threads: Annotated[int, typer.Option(min=1, help="Of torch.")] = 1,
    out: Annotated[
        Path, typer.Option(help="Folder of the comparison; one that was stopped goes on there.")
    ] = Path("split-inference"),
) -> None:
    """Measure what accuracy how many bytes buy: learned bottlenecks, simple ones, and pictures.

    A teacher is trained for each seed, every method learns from it for as long, and everything is
    really coded and decoded. The folder gets a row for each point, pictures and a page, which also
    estimates what a small device would need in time and energy.

    Stop it with Ctrl-C at any time: the same command goes on from the last epoch. Seeds may be
    measured by several commands at once, in the same folder.

    Example: flowerpress split compare --task cifar10 --at input-stage2 --seeds 3
    """
    from dataclasses import replace

    import torch
    from rich.console import Console

    from flowerpress.simulations.engines.errors import StoppedError
    from flowerpress.simulations.fitted import Column, FittedTable
    from flowerpress.simulations.human import percent
    from flowerpress.simulations.links import read_links
    from flowerpress.simulations.split.asked import METHODS, Inference
    from flowerpress.simulations.split.curve import Point
    from flowerpress.simulations.split.curve_cost import works
    from flowerpress.simulations.split.curve_report import (
        LOSSES,
        equal_cells,
        gathered_points,
        write_curve_report,
    )
    from flowerpress.simulations.split.inference import measure_seed
    from flowerpress.simulations.split.teacher import Schooling
    from flowerpress.simulations.tasks import load_task

    schooling = Schooling(epochs=teacher_epochs, augment=augment)
    if teacher_lr is not None:
        schooling = replace(schooling, lr=teacher_lr)
    wanted = Inference(
        at=at,
        betas=_numbers("--betas", betas),
        channels=channels,
        epochs=epochs,
        tail_epochs=tail_epochs,
        joint_epochs=joint_epochs,
        picture_epochs=picture_epochs,
        lr=lr,
        reductions=_whole("--reductions", reductions),
        codes=_whole("--codes", codes),
        qualities=_whole("--qualities", qualities),
        tuned_qualities=_whole("--tuned-qualities", tuned_qualities),
        methods=tuple(METHODS if methods is None else map(str.strip, methods.split(";"))),
        batch=batch,
        batch_size=batch_size,
        examples=examples,
        schooling=schooling,
    )
    way = read_links(link, 1, 0)[0]
    torch.set_num_threads(threads)
    made = load_task(task or "digits", data)
    loaded = made.load()
    told = Console(stderr=True, highlight=False)

    def said(point: Point) -> None:
        told.print(
            f"seed {point.seed}: {point.method}, {point.setting}: {percent(point.accuracy, 2)}, "
            f"{point.bytes_each:,.1f} bytes ({point.bytes_alone:,.1f} alone)",
            markup=False,
            soft_wrap=True,
        )

    def training(name: str) -> Tick:
        def tick(stage: str, done: int, due: int, loss: float) -> None:
            words = f"{name} ({stage})" if stage != name else name
            told.print(f"  {words}: epoch {done} of {due}, loss {loss:.4f}", markup=False)

        return tick

    try:
        for seed in range(first_seed, first_seed + seeds):
            measure_seed(made, loaded, wanted, seed, out, tick=training, said=said)
    except KeyboardInterrupt:
        raise StoppedError(out) from None
    points = gathered_points(out)
    work = works(made, loaded, wanted, {point.key for point in points})
    title = f"{made.name}: accuracy against bytes across the cut"
    page = write_curve_report(out, title, work, way, link)
    console = Console()
    columns = [Column("bytes at accuracy", text=True)]
    columns += [Column(f"-{percent(loss)}", drop=-index) for index, loss in enumerate(LOSSES)]
    console.print(FittedTable(columns, equal_cells(points, alone=False)))
    console.print(f"Report: {page}", soft_wrap=True, markup=False, highlight=False)


def _numbers(option: str, text: str) -> tuple[float, ...]:
    from flowerpress.compression import ConfigError

    try:
        return tuple(float(word) for word in text.split(",") if word.strip())
    except ValueError:
        raise ConfigError(f"{option} {text!r}: numbers separated by commas are expected") from None


def _whole(option: str, text: str) -> tuple[int, ...]:
    from flowerpress.compression import ConfigError

    numbers = _numbers(option, text)
    if not all(number >= 1 and number.is_integer() for number in numbers):
        raise ConfigError(f"{option} {text!r}: whole numbers from 1 up are expected")
    return tuple(map(int, numbers))
