"""``flowerpress split distill``: from a whole network to a cut one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from flowerpress.simulations.cli.options import (
    ConfigFile,
    DataFolder,
    Overrides,
    Partition,
    Task,
    configure,
)

__all__ = ["split_distill"]

_STAGES = {
    "teacher": "teacher",
    "features": "bottleneck",
    "tail": "server's side",
    "all": "both sides",
}


def split_distill(
    overrides: Overrides = None,
    config: ConfigFile = None,
    task: Task = None,
    data: DataFolder = None,
    at: Annotated[
        str | None,
        typer.Option(
            help="The part of the network after which it is cut; 'input-stage2': the bottleneck "
            "takes the place of all parts up to stage2 (default: the task's)."
        ),
    ] = None,
    bottleneck: Annotated[
        str,
        typer.Option(
            help="'entropic(channels=12)', 'reduction(channels=3,bits=8)', 'vq(codes=64)', "
            "'pca(channels=8)', 'plain(bits=8)'."
        ),
    ] = "entropic(channels=12)",
    mode: Annotated[
        str, typer.Option(help="vanilla, or u-shaped: the last part stays on the device.")
    ] = "vanilla",
    beta: Annotated[
        float, typer.Option(help="What a bit of an example may cost: more is fewer bytes.")
    ] = 3e-4,
    epochs: Annotated[int, typer.Option(min=0, help="Epochs that the bottleneck learns.")] = 8,
    tail_epochs: Annotated[
        int, typer.Option(min=0, help="Epochs that the server's side is tuned.")
    ] = 2,
    joint_epochs: Annotated[
        int, typer.Option(min=0, help="Epochs that both sides then learn on together.")
    ] = 4,
    lr: Annotated[float, typer.Option(help="Adam's first step.")] = 3e-3,
    batch_size: Annotated[int, typer.Option(min=1, help="Examples of a step.")] = 64,
    rounding: Annotated[
        str, typer.Option(help="How rounding is learned: noise or straight-through.")
    ] = "noise",
    teacher: Annotated[
        Path | None,
        typer.Option(
            help="A model.safetensors of the task's network, such as a simulation leaves "
            "(default: one is trained)."
        ),
    ] = None,
    teacher_epochs: Annotated[
        int, typer.Option(min=1, help="Epochs of a teacher that is trained.")
    ] = 10,
    clients: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Distill on the examples of so many clients; an epoch is then a round "
            "(default: on all examples, without clients).",
        ),
    ] = None,
    partition: Partition = None,
    uplink: Annotated[
        str | None, typer.Option(help="Codec of the clients' updates: stc (default), int8, ...")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes that train clients (default 1).")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Root of all randomness (default 0).")] = None,
    out: Annotated[
        Path, typer.Option(help="Folder of the cut network; one that was stopped goes on there.")
    ] = Path("cut"),
) -> None:
    """Teach a cut network what a whole one knows, at few bytes across the cut.

    First the bottleneck learns to give the teacher's features for few bits. Then the device's side
    stays as it is, and the server's learns from what is really decoded. At last both learn on
    together. The folder then holds what a device and a server load; bytes and accuracy are measured
    with the coder in between.

    Stop it with Ctrl-C at any time: the same command goes on from the last epoch.

    Example: flowerpress split distill --task digits --bottleneck "entropic(channels=6)"
    """
    settings = configure(
        config,
        overrides,
        task=task,
        data=data,
        clients=clients,
        partition=partition,
        uplink=uplink,
        workers=workers,
        seed=seed,
    )
    from rich.console import Console

    from flowerpress.simulations.fitted import Column, FittedTable
    from flowerpress.simulations.human import human_bytes, percent
    from flowerpress.simulations.quiet import hush_flower
    from flowerpress.simulations.split.distill_settings import DistillSettings
    from flowerpress.simulations.split.distilling import Distillation, distil

    hush_flower()
    wanted = Distillation(
        settings,
        at,
        bottleneck,
        mode,
        DistillSettings(
            beta,
            epochs,
            tail_epochs,
            lr,
            batch_size,
            rounding,  # type: ignore[arg-type]
            epochs_stage3=joint_epochs,
        ),
        teacher,
        teacher_epochs,
        clients is not None,
    )
    try:
        with _progress() as tick:
            done = distil(wanted, out, tick)
    except KeyboardInterrupt:
        Console(stderr=True).print("flowerpress: stopped; the same words go on from here")
        raise typer.Exit(130) from None
    rows = [
        ["teacher", percent(done.teacher), ""],
        [bottleneck, percent(done.student.accuracy), f"{done.student.bytes_each:,.1f}"],
    ]
    console = Console()
    columns = [Column("network", text=True), Column("accuracy"), Column("bytes an example")]
    console.print(FittedTable(columns, rows))
    if done.traffic is not None:
        up, down = human_bytes(done.traffic.up), human_bytes(done.traffic.down)
        console.print(f"Clients sent {up} and got {down}.", highlight=False)
    console.print(f"Cut network: {out}", soft_wrap=True, markup=False, highlight=False)


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int, float], None]]:
    """Show a line for each stage; where there is no terminal, print one for each epoch."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Left

    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Left(),
        TextColumn("loss {task.fields[loss]:.4f}"),
        console=console,
        disable=not console.is_terminal,
    )
    lines: dict[str, int] = {}
    with bar:

        def tick(stage: str, done: int, due: int, loss: float) -> None:
            if not console.is_terminal:
                console.print(f"{_STAGES[stage]}: epoch {done} of {due}, loss {loss:.4f}")
                return
            if stage not in lines:
                lines[stage] = int(bar.add_task(_STAGES[stage], total=due, loss=loss))
            bar.update(lines[stage], completed=done, loss=loss)  # type: ignore[arg-type]

        yield tick
