"""``flowerpress inspect``: what is in an update, and what a codec would make of one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import RenderableType

    from flowerpress.protos.envelope import Update

__all__ = ["inspect"]


def inspect(
    file: Annotated[
        Path,
        typer.Argument(
            help="An update (*.fpu), a packed model (*.fpress), or tensors in *.npz or "
            "*.safetensors."
        ),
    ],
    codec: Annotated[str, typer.Option(help="Codec to try on tensors.")] = "stc",
    save: Annotated[
        Path | None, typer.Option(help="Write the coded update here, to be inspected or sent.")
    ] = None,
) -> None:
    """Show every tensor of an update or of a packed model with its codec, bytes and error.

    Tensors that are not coded yet are tried with --codec; NMSE is the squared error by the energy.
    Example: flowerpress inspect update.npz --codec "topk(density=0.02)" --save update.fpu
    """
    from rich.console import Console

    from flowerpress.compression import ConfigError, preset
    from flowerpress.protos.envelope import MAGIC, parts
    from flowerpress.simulations.checkpoints.packing import pack_tensors
    from flowerpress.simulations.checkpoints.stored import opened
    from flowerpress.simulations.tensor_table import tensor_table

    try:
        with file.open("rb") as stream:
            start = stream.read(len(MAGIC))
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from error
    console = Console()
    if start == MAGIC:
        for part in _of_update(file):
            console.print(part)
        return
    choice = preset(codec)
    stored = opened(file)
    update, costs = pack_tensors(stored, choice.plan(stored.manifest), lambda _: None)
    coded = parts(update)
    size = sum(map(len, coded))
    for part in tensor_table(costs, size):
        console.print(part)
    if save is not None:
        try:
            with save.open("wb") as out:
                out.writelines(coded)
        except OSError as error:
            raise ConfigError(f"cannot write {save}: {error.strerror}") from error
        console.print(
            f"{size:,} bytes written to {save}",
            soft_wrap=True,
            markup=False,
            highlight=False,
        )


def _of_update(file: Path) -> list[RenderableType]:
    from rich.text import Text

    from flowerpress.compression import Sparse, decode_frames
    from flowerpress.protos.envelope import unpack
    from flowerpress.simulations.checkpoints.packing import Cost
    from flowerpress.simulations.checkpoints.stored import mapped
    from flowerpress.simulations.fitted import visible
    from flowerpress.simulations.tensor_table import tensor_table

    blob = mapped(file)
    update: Update = unpack(blob, None)
    manifest = update.manifest
    assert manifest is not None  # unpack demands one where the caller has none
    costs = []
    for frame, (_, value) in zip(
        update.frames, decode_frames(manifest, update.frames), strict=True
    ):
        spec = manifest.specs[frame.tensor]
        kept = value.positions.size if isinstance(value, Sparse) else spec.size
        costs.append(Cost(spec, frame.codec.describe(), len(frame.body), kept))
    head = (
        f"{update.kind.name.lower()}  run {update.run:016x}  round {update.round}  "
        f"client {update.client}  sequence {update.sequence}"
    )
    shown: list[RenderableType] = [head]
    if update.metadata:
        shown.append(Text(visible(f"metadata {update.metadata[:500]}")))
    return [*shown, *tensor_table(costs, len(blob))]
