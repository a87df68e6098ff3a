"""``flowerpress inspect``: what is in an update, and what a codec would make of one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rich.table import Table

    from flowerpress.compression import Decoded, Frame, Manifest
    from flowerpress.protos import Update

__all__ = ["inspect"]


def inspect(
    file: Annotated[
        Path,
        typer.Argument(help="An update (*.fpu), or tensors in *.npz or *.safetensors."),
    ],
    codec: Annotated[str, typer.Option(help="Codec to try on tensors.")] = "stc",
    save: Annotated[
        Path | None, typer.Option(help="Write the coded update here, to be inspected or sent.")
    ] = None,
) -> None:
    """Show every tensor of an update with its codec, bytes and error.

    Example: flowerpress inspect update.npz --codec "topk(density=0.02)" --save update.fpu
    """
    from rich.console import Console

    from flowerpress.compression import ConfigError

    try:
        with file.open("rb") as stream:
            start = stream.read(4)
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from error
    console = Console()
    if start == b"FPU1":
        for part in _update_tables(file):
            console.print(part)
        return
    table, blob = _trial(_tensors(file), codec)
    console.print(table)
    if save is not None:
        save.write_bytes(blob)
        console.print(f"{len(blob):,} bytes written to {save}", soft_wrap=True)


def _tensors(file: Path) -> dict[str, NDArray[Any]]:
    import zipfile

    import numpy as np
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    from flowerpress.compression import ConfigError

    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        with np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, AttributeError, SafetensorError, zipfile.BadZipFile) as error:
        raise ConfigError(
            f"{file}: neither an update nor tensors in .npz or .safetensors ({error})"
        ) from error


def _trial(arrays: dict[str, NDArray[Any]], codec: str) -> tuple[Table, bytes]:
    """Return what ``codec`` makes of the tensors, and the update as bytes."""
    import numpy as np

    from flowerpress.compression import Manifest, encode_frames, preset
    from flowerpress.protos import Kind, Update, pack

    manifest = Manifest.of(arrays)
    plan = preset(codec).plan(manifest)
    frames, decoded = encode_frames(manifest, plan, arrays, np.random.default_rng(0))
    blob = pack(Update(Kind.MODEL, 0, 0, 0, 0, manifest.digest, frames, manifest=manifest))
    return _table(manifest, frames, decoded, arrays, len(blob)), blob


def _update_tables(file: Path) -> list[Any]:
    from flowerpress.compression import decode_frames
    from flowerpress.protos import unpack

    update: Update = unpack(file.read_bytes(), None)
    manifest = update.manifest
    assert manifest is not None  # unpack demands one where the caller has none
    decoded = [value for _, value in decode_frames(manifest, update.frames)]
    head = (
        f"{update.kind.name.lower()}  run {update.run:016x}  round {update.round}  "
        f"client {update.client}  sequence {update.sequence}"
    )
    return [head, _table(manifest, list(update.frames), decoded, None, file.stat().st_size)]


def _table(
    manifest: Manifest,
    frames: list[Frame],
    decoded: list[Decoded],
    arrays: dict[str, NDArray[Any]] | None,
    total: int,
) -> Table:
    import numpy as np
    from rich.table import Table

    from flowerpress.compression import Sparse

    table = Table()
    for title in ("tensor", "shape", "codec"):
        table.add_column(title, overflow="fold")
    for title in ("bytes", "bits/param", "kept", "NMSE"):
        table.add_column(title, justify="right")
    lost = power = 0.0
    for frame, value in zip(frames, decoded, strict=True):
        spec = manifest.specs[frame.tensor]
        kept = value.positions.size if isinstance(value, Sparse) else spec.size
        nmse = ""
        if arrays is not None and spec.is_float:
            x = arrays[spec.name].astype(np.float64).reshape(-1)
            error, energy = float(((x - value.dense()) ** 2).sum()), float((x**2).sum())
            lost, power = lost + error, power + energy
            nmse = f"{error / energy:.4f}" if energy else "0"
        table.add_row(
            spec.name,
            "x".join(map(str, spec.shape)) or "scalar",
            frame.codec.describe(),
            f"{len(frame.body):,}",
            f"{8 * len(frame.body) / max(spec.size, 1):.3f}",
            f"{kept:,}",
            nmse,
        )
    table.add_section()
    table.add_row(
        "all, with headers",
        f"{manifest.size:,}",
        f"{manifest.nbytes / max(total, 1):.1f}x smaller than {manifest.nbytes:,} bytes",
        f"{total:,}",
        f"{8 * total / max(manifest.size, 1):.3f}",
        "",
        f"{lost / power:.4f}" if power else "",
    )
    return table
