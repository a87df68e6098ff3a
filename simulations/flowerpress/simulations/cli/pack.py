"""``flowerpress pack``: the tensors of a model file in a fraction of their bytes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flowerpress.simulations.cli.options import Force

if TYPE_CHECKING:
    from flowerpress.compression import Manifest, Preset

__all__ = ["pack"]

_DEFAULT = "rd"
_DEFAULT_NMSE = 1e-3
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}


def pack(
    file: Annotated[
        Path,
        typer.Argument(
            help="A model in *.safetensors, *.safetensors.index.json (shards) or *.npz.",
        ),
    ],
    nmse: Annotated[
        float | None,
        typer.Option(help="Largest error: squared error by energy, over all tensors."),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option("--bytes", help="Size of the packed file instead, such as 800k or 1.5G."),
    ] = None,
    codec: Annotated[
        str | None,
        typer.Option(help="Any codec, such as int8, fp16 or lossless (default: rd)."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write (default: FILE.fpress).")
    ] = None,
    force: Force = False,
) -> None:
    """Pack a model file, and show what every tensor took and lost.

    Without --nmse, --bytes and --codec the error is at most 0.001, an error in each weight of 3% of
    its typical size. Tensors of integers are kept exactly, bfloat16 and float16 come back as such.
    flowerpress unpack gives the model back; no other file is needed for it.

    Example: flowerpress pack model.safetensors --nmse 1e-3 -o model.fpress
    """
    from rich.console import Console

    from flowerpress.compression import ConfigError
    from flowerpress.protos.envelope import parts
    from flowerpress.simulations.checkpoints.atomic import written_whole
    from flowerpress.simulations.checkpoints.packing import pack_tensors
    from flowerpress.simulations.checkpoints.stored import INDEX, opened
    from flowerpress.simulations.cli.progress import progress
    from flowerpress.simulations.tensor_table import tensor_table

    if nmse is not None and size is not None:
        raise ConfigError("--nmse and --bytes: give one of them, the other follows")
    limit = None if size is None else _bytes(size)
    stored = opened(file)
    stem = file.name.removesuffix(INDEX) if file.name.endswith(INDEX) else file.stem
    out = output or file.with_name(f"{stem}.fpress")
    if not len(stored.manifest):
        raise ConfigError(f"{file}: holds no tensors")
    beside = _beside(stored.manifest, stored.metadata)
    budget = None if limit is None else limit - beside
    if budget is not None and budget <= 0:
        raise ConfigError(f"--bytes {size}: names and shapes alone take {beside:,} bytes")
    plan = _choose(codec, nmse, budget).plan(stored.manifest)
    with written_whole(out, force=force) as stream:
        with progress("packing", stored.manifest) as told:
            update, costs = pack_tensors(stored, plan, told)
        coded = parts(update)
        total = sum(map(len, coded))
        if limit is not None and total > limit:
            raise ConfigError(f"--bytes {size}: {total:,} bytes are the fewest that this takes")
        stream.writelines(coded)
    console = Console()
    for part in tensor_table(costs, total):
        console.print(part)
    line = f"{total:,} bytes written to {out}"
    console.print(line, soft_wrap=True, markup=False, highlight=False)


def _choose(codec: str | None, nmse: float | None, limit: int | None) -> Preset:
    """Return the codec, told the error or the size that it must keep to."""
    from dataclasses import fields

    from flowerpress.compression import PRESETS, ConfigError, preset
    from flowerpress.compression.spelling import parse_call

    text = codec or _DEFAULT
    if codec is None and nmse is None and limit is None:
        nmse = _DEFAULT_NMSE
    aim = ("max_nmse", nmse, "--nmse") if limit is None else ("target_bytes", limit, "--bytes")
    if aim[1] is None:
        return preset(text)
    preset(text)
    name, arguments = parse_call(text)
    known = {field.name for field in fields(PRESETS[name])}  # type: ignore[arg-type]
    if aim[0] not in known:
        raise ConfigError(
            f"{aim[2]} cannot be kept by {name}; leave it out, or leave out --codec for rd"
        )
    inside = ", ".join(f"{k}={v}" for k, v in (arguments | {aim[0]: str(aim[1])}).items())
    return preset(f"{name}({inside})")


def _bytes(text: str) -> int:
    from flowerpress.compression import ConfigError

    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmg]?)b?", text.strip().lower())
    if not match:
        raise ConfigError(f"--bytes {text}: is not a number of bytes such as 800000, 800k or 1.5G")
    return int(float(match[1]) * _UNITS[match[2]])


def _beside(manifest: Manifest, metadata: dict[str, str]) -> int:
    """Return what names, shapes and metadata take; a codec counts the rest of a message itself."""
    from flowerpress.protos.envelope import Kind, Update, parts

    empty = Update(Kind.MODEL, 0, 0, 0, 0, manifest.digest, [], manifest=manifest)
    text = sum(len(key.encode()) + len(value.encode()) + 8 for key, value in metadata.items())
    return sum(map(len, parts(empty))) + text
