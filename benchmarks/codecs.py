"""Every codec on every update of a folder: bytes, error, distance to the entropy, speed, memory.

python benchmarks/codecs.py FOLDER
python benchmarks/codecs.py FOLDER --codecs "none,int8,stc(density=0.005)" --csv codecs.csv
python benchmarks/codecs.py FOLDER --codecs "stc(density=*)" --picture codecs.png
python benchmarks/codecs.py FOLDER --codecs "topk(density=*)" --match nncodec.csv
"""

from __future__ import annotations

import argparse
import csv
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import nnc
from benchmarks.apart import Apart
from benchmarks.files import Point, large_only, read_points, read_updates
from benchmarks.matching import (
    TARGETS,
    Match,
    Speed,
    match,
    match_table,
    speed,
    speed_table,
)
from benchmarks.measuring import KNOB, Row, measure, split_codecs
from benchmarks.picture import draw
from benchmarks.sweeping import Curve

CODECS = (
    "none,lossless,lossless(coder=rans),fp16,fp16(coder=rans),int8,int8(coder=zstd),"
    "topk,qsgd,qsgd(levels=1,norm=l2),stc,stc(positions=golomb),fedzip"
)
SPAN = (0.02, 0.5)
SPEED_AT = 0.2
PEER = "NNCodec lambda=1"


def main() -> None:
    arguments = _arguments()
    console = Console(width=150)
    with Apart() as apart:
        if arguments.match is not None:
            _match(arguments, console, apart)
        else:
            _measure(arguments, console, apart)


def _measure(arguments: argparse.Namespace, console: Console, apart: Apart) -> None:
    rows: list[Row] = []
    panels: dict[str, dict[str, list[Point]]] = {}
    for update in read_updates(arguments.folder, arguments.previous):
        panel = panels.setdefault(update.name, {})
        for codec in split_codecs(arguments.codecs):
            if KNOB in codec:
                panel[codec] = Curve(update, codec, apart).span(*SPAN)
            else:
                row = measure(update, codec, apart, arguments.repeat, arguments.memory)
                rows.append(row)
                panel[codec] = [Point(codec, row.bits_per_param, row.nmse)]
        console.print(_table([row for row in rows if row.update == update.name], update.name))
        for codec, points in panel.items():
            if KNOB in codec:
                console.print(_curve_table(codec, points))
    if arguments.csv is not None:
        _write(arguments.csv, Row, [asdict(row) for row in rows])
    if arguments.picture is not None:
        known = {} if arguments.reference is None else read_points(arguments.reference)
        draw(arguments.picture, panels, known)


def _match(arguments: argparse.Namespace, console: Console, apart: Apart) -> None:
    known = read_points(arguments.match)
    updates = [
        each for each in read_updates(arguments.folder, arguments.previous) if each.name in known
    ]
    if not updates:
        raise SystemExit(f"{arguments.match}: has no points of an update in {arguments.folder}")
    everything: list[Match] = []
    codecs = split_codecs(arguments.codecs)
    for codec in codecs:
        if KNOB not in codec:
            raise SystemExit(f"{codec}: leave one parameter open for --match, such as step=*")
        matches: list[Match] = []
        speeds: list[Speed | None] = []
        for update in updates:
            theirs = known[update.name].get(arguments.peer, [])
            curve = Curve(large_only(update), codec, apart)
            matches += match(curve, theirs, TARGETS)
            if nnc.available():
                speeds.append(speed(curve, theirs, SPEED_AT, apart, arguments.repeat))
        if not matches:
            labels = sorted({label for curves in known.values() for label in curves})
            raise SystemExit(
                f"{codec}: no NMSE of {', '.join(map(str, TARGETS))} is reached by both sides; "
                f"the points are those of: {', '.join(labels)}"
            )
        console.print(match_table(codec, arguments.peer, matches))
        if nnc.available():
            console.print(speed_table([each for each in speeds if each is not None], SPEED_AT))
        elif codec == codecs[-1]:
            console.print(f"No speeds side by side: {nnc.MISSING}")
        everything += matches
    if arguments.csv is not None:
        _write(arguments.csv, Match, [asdict(each) for each in everything])


def _write(file: Path, kind: Any, rows: Sequence[dict[str, Any]]) -> None:
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, [field.name for field in fields(kind)])
        writer.writeheader()
        writer.writerows(rows)


def _table(rows: Sequence[Row], title: str) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE)
    table.add_column("codec", no_wrap=True)
    for name in (
        "bytes", "bits/param", "entropy", "over", "NMSE",
        "enc M/s", "dec M/s", "enc mem", "dec mem",
    ):  # fmt: skip
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.codec,
            f"{row.bytes:,}",
            f"{row.bits_per_param:.4f}",
            _cell(row.entropy_bits, ".4f"),
            _cell(row.over_entropy, "+.1%"),
            f"{row.nmse:.4g}",
            _cell(row.encode_mparams, ",.4g"),
            _cell(row.decode_mparams, ",.4g"),
            _cell(row.encode_memory, ".2f"),
            _cell(row.decode_memory, ".2f"),
        )
    return table


def _curve_table(codec: str, points: Sequence[Point]) -> Table:
    table = Table(title=codec, title_justify="left", box=SIMPLE)
    table.add_column("NMSE", justify="right")
    table.add_column("bits/param", justify="right")
    for point in points:
        table.add_row(f"{point.nmse:.4g}", f"{point.bits_per_param:.4f}")
    return table


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=textwrap.dedent(
            """\
            Codes every update of a folder (.npz files with one array per tensor) with every codec.

            "bytes" is the length of the whole message, headers included. "entropy" is what the
            coded symbols and positions carry, one by one, plus scales and centroids; "over" is
            the distance of the bytes to it; "-" for codecs whose symbols are not coded one by
            one. NMSE is the squared error over the squared norm, of all tensors, of what another
            process decodes. Speeds are millions of parameters a second of processor time of one
            thread, the best of --repeat runs; the first run compiles the kernels and does not
            count. "mem" is the peak memory beside the input, in bytes per byte of float32 (on
            Linux). Stochastic codecs start from seed 0.

            NAME_previous_global.npz is not an update but the averaged one of the round before,
            which both ends know: codecs get it as their reference for NAME.

            A star, as in "topk(density=*)", stands for every value: the codec becomes a curve in
            the picture, and --match can set it to where the error is another codec's.
            """
        ),
    )
    parser.add_argument("folder", type=Path, help="with the updates")
    parser.add_argument("--codecs", default=CODECS, help="separated by commas")
    parser.add_argument("--repeat", type=int, default=3, help="runs to take the best of")
    parser.add_argument(
        "--memory", action=argparse.BooleanOptionalAction, default=True, help="measure memory"
    )
    parser.add_argument(
        "--previous",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="hand codecs the averaged update of the round before",
    )
    parser.add_argument("--csv", type=Path, help="also write the figures there")
    parser.add_argument("--picture", type=Path, help="PNG of bits against error")
    parser.add_argument("--reference", type=Path, help="points for the picture, from nnc.py")
    parser.add_argument(
        "--match",
        type=Path,
        help="points of another codec (columns file, lambda, bits_per_param, nmse): bits at equal "
        "NMSE instead of the table, tensors of fewer than 256 elements left out, and speeds side "
        "by side where NNCodec is installed",
    )
    parser.add_argument("--peer", default=PEER, help=f"whose points to match (default {PEER})")
    return parser.parse_args()


if __name__ == "__main__":
    main()
