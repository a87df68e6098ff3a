"""Every codec on every update of a folder: bytes, error, distance to the entropy, speed.

python benchmarks/codecs.py FOLDER
python benchmarks/codecs.py FOLDER --codecs "none,int8,stc(density=0.005)" --csv codecs.csv
"""

from __future__ import annotations

import argparse
import csv
import re
import textwrap
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from flowerpress.compression import (
    Context,
    Frame,
    Manifest,
    Pipeline,
    Plan,
    Sparse,
    TensorSpec,
    apply_frames,
    decode_frames,
    preset,
)
from flowerpress.compression.entropy import entropy, gap_entropy, subset_bits
from flowerpress.compression.stages import Levels
from flowerpress.compression.wire import Writer
from flowerpress.protos.envelope import Kind, Update, pack

Arrays = dict[str, NDArray[Any]]

CODECS = (
    "none,lossless,lossless(coder=rans),fp16,fp16(coder=rans),int8,int8(coder=zstd),"
    "topk,qsgd,qsgd(levels=1,norm=l2),stc,stc(positions=golomb),fedzip"
)
SEED = 0
FEWEST_GAPS = 1000


@dataclass(frozen=True)
class Row:
    """One codec on one update. ``entropy_bits``: per parameter, side information included."""

    update: str
    codec: str
    bytes: int
    bits_per_param: float
    entropy_bits: float
    over_entropy: float
    nmse: float
    encode_mparams: float
    decode_mparams: float


def main() -> None:
    arguments = _arguments()
    rows = []
    console = Console(width=110)
    for file in _updates(arguments.folder):
        with np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        for codec in re.split(r",(?![^(]*\))", arguments.codecs):
            rows.append(measure(file.stem, arrays, codec.strip(), arguments.repeat))
        console.print(_table([row for row in rows if row.update == file.stem]))
    if arguments.csv is not None:
        with arguments.csv.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, [field.name for field in fields(Row)])
            writer.writeheader()
            writer.writerows(asdict(row) for row in rows)


def measure(update: str, arrays: Arrays, codec: str, repeat: int) -> Row:
    """Return what ``codec`` makes of one update."""
    manifest = Manifest.of(arrays)
    plan = preset(codec).plan(manifest)
    frames = _encode(manifest, plan, arrays)  # compiles the kernels, too
    encode = min(_seconds(lambda: _encode(manifest, plan, arrays)) for _ in range(repeat))
    decode = min(_seconds(lambda: list(decode_frames(manifest, frames))) for _ in range(repeat))
    decoded = apply_frames(manifest, {}, frames, change=False)
    lost = sum(float(((decoded[n] - x).astype(np.float64) ** 2).sum()) for n, x in arrays.items())
    power = sum(float((x.astype(np.float64) ** 2).sum()) for x in arrays.values())
    size = len(pack(Update(Kind.DELTA, 1, 1, 1, 1, manifest.digest, frames, base=bytes(16))))
    ideal = sum(
        _ideal_bits(frame, manifest.specs[frame.tensor], arrays[manifest.specs[frame.tensor].name])
        for frame in frames
    )
    return Row(
        update=update,
        codec=codec,
        bytes=size,
        bits_per_param=8 * size / manifest.size,
        entropy_bits=ideal / manifest.size,
        over_entropy=8 * size / ideal - 1,
        nmse=lost / power,
        encode_mparams=manifest.size / encode / 1e6,
        decode_mparams=manifest.size / decode / 1e6,
    )


def _ideal_bits(frame: Frame, spec: TensorSpec, x: NDArray[Any]) -> float:
    """Return the order-0 entropy of what a frame codes, in bits, plus its side information.

    Symbols at their empirical entropy. Positions at that of their gaps or, where few gaps make
    this meaningless, at the logarithm of the number of subsets, whichever is larger. Scales and
    centroids at their own size.
    """
    codec = frame.codec
    assert isinstance(codec, Pipeline)
    signal: NDArray[Any] | Levels = x.reshape(-1)
    bits = 0.0
    for stage in codec.stages:
        assert not isinstance(signal, Levels)
        side = Writer()
        signal = stage.encode(signal, spec, Context(np.random.default_rng(SEED)), side)
        if stage.name != "topk":
            bits += 8 * len(side)
    decoded = codec.decode(memoryview(frame.body), spec)
    if isinstance(decoded, Sparse):
        k = decoded.positions.size
        gaps = k * gap_entropy(decoded.positions)
        # Below a thousand or so, the histogram of the gaps would itself be most of the cost.
        bits += gaps if k >= FEWEST_GAPS else subset_bits(k, spec.size)
    assert isinstance(signal, Levels)
    return bits + signal.symbols.size * entropy(signal.symbols)


def _encode(manifest: Manifest, plan: Plan, arrays: Arrays) -> list[Frame]:
    context = Context(np.random.default_rng(SEED))
    return [
        Frame(index, codec, codec.encode(arrays[spec.name], spec, context))
        for index, (spec, codec) in enumerate(zip(manifest.specs, plan.codecs, strict=True))
    ]


def _seconds(work: Any) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def _updates(folder: Path) -> Iterator[Path]:
    files = sorted(folder.glob("*.npz"))
    if not files:
        raise SystemExit(f"{folder}: holds no .npz file with the tensors of an update")
    yield from files


def _table(rows: Sequence[Row]) -> Table:
    table = Table(title=rows[0].update, title_justify="left", box=SIMPLE)
    table.add_column("codec", no_wrap=True)
    for title in ("bytes", "bits/param", "entropy", "over", "NMSE", "enc M/s", "dec M/s"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.codec,
            f"{row.bytes:,}",
            f"{row.bits_per_param:.4f}",
            f"{row.entropy_bits:.4f}",
            f"{row.over_entropy:+.1%}",
            f"{row.nmse:.4g}",
            f"{row.encode_mparams:,.0f}",
            f"{row.decode_mparams:,.0f}",
        )
    return table


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=textwrap.dedent(
            """\
            Codes every update of a folder (.npz files with one array per tensor) with every codec.

            "bytes" is the length of the whole message, headers included. "entropy" is what the
            coded symbols and positions carry, one by one, plus scales and centroids; "over" is
            the distance of the bytes to it. NMSE is the squared error over the squared norm, of
            all tensors. Speeds are millions of parameters a second of processor time of one
            thread, the best of --repeat runs; the first run compiles the kernels and does not
            count. Stochastic codecs start from seed 0.
            """
        ),
    )
    parser.add_argument("folder", type=Path, help="with the updates")
    parser.add_argument("--codecs", default=CODECS, help="separated by commas")
    parser.add_argument("--repeat", type=int, default=3, help="runs to take the best of")
    parser.add_argument("--csv", type=Path, help="also write the figures there")
    return parser.parse_args()


if __name__ == "__main__":
    main()
