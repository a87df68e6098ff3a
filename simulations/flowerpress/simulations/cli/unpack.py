"""``flowerpress unpack``: a packed model as a file of tensors again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flowerpress.simulations.cli.options import Force

__all__ = ["unpack"]


def unpack(
    file: Annotated[Path, typer.Argument(help="A packed model (*.fpress).")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="*.safetensors or *.npz to write (default: FILE.safetensors)."
        ),
    ] = None,
    force: Force = False,
) -> None:
    """Write the tensors of a packed model to a file, in the dtypes that they had.

    A file that was damaged or cut off is refused. flowerpress inspect shows what is in one.

    Example: flowerpress unpack model.fpress -o model.safetensors
    """
    from rich.console import Console

    from flowerpress.compression import ConfigError
    from flowerpress.protos.envelope import unpack as unpack_envelope
    from flowerpress.simulations.checkpoints.atomic import check_room, written_whole
    from flowerpress.simulations.checkpoints.packing import metadata_of, unpacked
    from flowerpress.simulations.checkpoints.stored import mapped
    from flowerpress.simulations.checkpoints.written import WRITERS, check_writable
    from flowerpress.simulations.cli.progress import progress

    try:
        blob = mapped(file)
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from error
    out = output or file.with_suffix(".safetensors")
    update = unpack_envelope(blob, None)
    manifest = update.manifest
    assert manifest is not None  # an envelope without one is refused where the reader has none
    check_writable(out, manifest)
    check_room(out, manifest.nbytes)
    metadata = metadata_of(update)
    with written_whole(out, force=force) as stream, progress("unpacking", manifest) as told:
        WRITERS[out.suffix](stream, manifest, metadata, unpacked(update, told))
    line = f"{len(manifest):,} tensors, {manifest.nbytes:,} bytes, written to {out}"
    Console().print(line, soft_wrap=True, markup=False, highlight=False)
