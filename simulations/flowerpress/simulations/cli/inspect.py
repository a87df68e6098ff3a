"""``flowerpress inspect``: what is in an update, and what a codec would make of one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rich.console import RenderableType

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

    Tensors that are not coded yet are tried with --codec; NMSE is the squared error by the energy.
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
        for part in _of_update(file):
            console.print(part)
        return
    parts, blob = _trial(_tensors(file), codec)
    for part in parts:
        console.print(part)
    if save is not None:
        try:
            save.write_bytes(blob)
        except OSError as error:
            raise ConfigError(f"cannot write {save}: {error.strerror}") from error
        console.print(
            f"{len(blob):,} bytes written to {save}",
            soft_wrap=True,
            markup=False,
            highlight=False,
        )


def _tensors(file: Path) -> dict[str, NDArray[Any]]:
    import zipfile
    import zlib

    import numpy as np
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    from flowerpress.compression import ConfigError

    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        if not zipfile.is_zipfile(file):
            raise ConfigError(f"{file}: neither an update nor tensors in .npz or .safetensors")
        with np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (SafetensorError, OSError, TypeError, KeyError, zlib.error) as error:
        raise ConfigError(f"{file}: cannot be read: {error}") from error
    except (ValueError, NotImplementedError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{file}: damaged, or holds more than tensors") from error


def _trial(arrays: dict[str, NDArray[Any]], codec: str) -> tuple[list[RenderableType], bytes]:
    """Return what ``codec`` makes of the tensors, and the update as bytes."""
    import numpy as np

    from flowerpress.compression import Manifest, encode_frames, preset
    from flowerpress.protos import Kind, Update, pack

    manifest = Manifest.of(arrays)
    plan = preset(codec).plan(manifest)
    frames, decoded = encode_frames(manifest, plan, arrays, np.random.default_rng(0))
    blob = pack(Update(Kind.MODEL, 0, 0, 0, 0, manifest.digest, frames, manifest=manifest))
    return _shown(manifest, frames, decoded, arrays, len(blob)), blob


def _of_update(file: Path) -> list[RenderableType]:
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
    return [
        head,
        *_shown(manifest, list(update.frames), decoded, None, file.stat().st_size),
    ]


def _shown(
    manifest: Manifest,
    frames: list[Frame],
    decoded: list[Decoded],
    arrays: dict[str, NDArray[Any]] | None,
    total: int,
) -> list[RenderableType]:
    """Return the table of the tensors, and what is true of all of them below it."""
    import numpy as np
    from rich.text import Text

    from flowerpress.compression import Sparse
    from flowerpress.simulations.fitted import Column, FittedTable

    columns = [
        Column("tensor", text=True),
        Column("shape", text=True, drop=2),
        Column("bytes"),
        Column("bits", drop=3),
        Column("kept", drop=0),
        Column("NMSE", drop=4),
        Column("codec", text=True, drop=1),
    ]
    codecs = [frame.codec.describe() for frame in frames]
    shared = len(set(codecs)) == 1
    rows = []
    lost = power = 0.0
    kept_of_all = 0
    for frame, value, codec in zip(frames, decoded, codecs, strict=True):
        spec = manifest.specs[frame.tensor]
        kept = value.positions.size if isinstance(value, Sparse) else spec.size
        kept_of_all += kept
        nmse = ""
        if arrays is not None and spec.is_float:
            x = arrays[spec.name].astype(np.float64).reshape(-1)
            error, energy = float(((x - value.dense()) ** 2).sum()), float((x**2).sum())
            lost, power = lost + error, power + energy
            nmse = f"{error / energy:.4f}" if energy else "0"
        rows.append(
            [
                spec.name,
                "x".join(map(str, spec.shape)) or "scalar",
                f"{len(frame.body):,}",
                f"{8 * len(frame.body) / max(spec.size, 1):.3f}",
                f"{kept:,}",
                nmse,
                "" if shared else codec,
            ]
        )
    rows.append(
        [
            "all, with headers",
            "",
            f"{total:,}",
            f"{8 * total / max(manifest.size, 1):.3f}",
            f"{kept_of_all:,}",
            f"{lost / power:.4f}" if power else "",
            "",
        ]
    )
    if shared:
        columns.pop()
        rows = [row[:-1] for row in rows]
    notes = [f"Codec: {codecs[0]}."] if shared else []
    notes.append(
        f"{manifest.size:,} values of {manifest.nbytes:,} bytes: "
        f"{manifest.nbytes / max(total, 1):.1f}x smaller. Bits: per value."
    )
    return [
        FittedTable(columns, rows, last_apart=True, nothing=""),
        Text(" ".join(notes), style="dim"),
    ]
