"""What allocators cost, and what L-GreCo's families of codecs gain by them.

python benchmarks/allocators.py
python benchmarks/allocators.py FOLDER
python benchmarks/allocators.py FOLDER --families "topk,powersgd" --csv allocators.csv
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.files import Update, nmse, read_updates
from benchmarks.measuring import fill, seconds
from flowerpress.compression import Manifest, encode_frames, preset
from flowerpress.compression.rates.dynamic_program import dynamic_program, losses
from flowerpress.compression.rates.hull import Choice, total
from flowerpress.compression.rates.lambda_search import lambda_search, spend
from flowerpress.compression.rates.menu import measure
from flowerpress.compression.rates.points import Points

__all__ = ["FAMILIES", "Cost", "Family", "Row", "compare", "costs", "synthetic"]

_HALVINGS = 12
SIZES = ((300, 32), (1000, 64))
SHARES = (0.05, 0.2, 0.6)  # of the bytes between the coarsest and the finest setting


@dataclass(frozen=True)
class Family:
    """Settings to choose from, and the one that all tensors have without an allocator.

    ``together``: a codec that looks at all tensors at once, with ``KNOB`` for its parameter, from
    ``span[0]`` (least error) to ``span[1]``; or none.
    """

    uniform: str
    menu: tuple[str, ...]
    together: str = ""
    span: tuple[float, float] = (1.0, 1.0)


def _densities(*values: float) -> tuple[str, ...]:
    return tuple(f"topk(density={value:g})" for value in values)


FAMILIES = MappingProxyType(
    {
        # As wide as they are in the paper, four bits with the sign, and entropy coded as here.
        "qsgd-packed": Family(
            "qsgd(bits=3,coder=pack)", tuple(f"qsgd(bits={b},coder=pack)" for b in range(1, 9))
        ),
        "qsgd": Family("qsgd(bits=3)", tuple(f"qsgd(bits={b})" for b in range(1, 9))),
        "topk": Family(
            "topk(density=0.01)",
            _densities(0.001, 0.002, 0.003, 0.005, 0.007, 0.01, 0.014, 0.02, 0.03, 0.05, 0.1),
            "topk(density=*,scope=global)",
            (0.02, 0.00001),
        ),
        "powersgd": Family("powersgd(rank=4)", tuple(f"powersgd(rank={r})" for r in range(2, 9))),
    }
)


@dataclass(frozen=True)
class Row:
    """One family on one update: bytes of all bodies and NMSE, of one setting and of allocators.

    ``norm``: the sum of ``||x - x^||`` over tensors is at most that of the uniform setting;
    ``squared``: that of ``||x - x^||**2`` is. ``together``: of the codec that looks at all tensors
    at once, at the NMSE of the uniform setting.
    """

    update: str
    family: str
    uniform_bytes: float
    uniform_nmse: float
    dp_norm_bytes: float
    dp_norm_nmse: float
    lambda_norm_bytes: float
    lambda_norm_nmse: float
    dp_squared_bytes: float
    dp_squared_nmse: float
    lambda_squared_bytes: float
    lambda_squared_nmse: float
    together_bytes: float | None = None


@dataclass(frozen=True)
class Cost:
    """Processor time of an allocator in milliseconds, and what it found beside lambda search."""

    tensors: int
    settings: int
    allocator: str
    budget: str
    milliseconds: float
    ratio: float


def compare(update: Update, name: str, seed: int) -> Row:
    """Return what allocators make of a family on an update, at the error of one setting for all."""
    family = FAMILIES[name]
    manifest = Manifest.of(update.arrays)
    points = measure(manifest, update.arrays, family.menu, rng=np.random.default_rng(seed))
    same = np.full(len(points.names), family.menu.index(family.uniform))
    found: dict[str, Choice] = {"uniform": same}
    for error in ("norm", "squared"):
        lost = losses(points, None, error)
        most = total(lost, same)
        found[f"dp_{error}"] = dynamic_program(points, max_error=most, error=error)
        found[f"lambda_{error}"] = spend(lost, points.bytes, most, "error")
    figures = {}
    for kind, choice in found.items():
        figures[f"{kind}_bytes"], figures[f"{kind}_nmse"] = points.chosen(choice)
    row = Row(update.name, name, **figures)
    return replace(row, together_bytes=_together(update, manifest, family, row.uniform_nmse))


def _together(update: Update, manifest: Manifest, family: Family, most: float) -> float | None:
    """Return the fewest bytes of bodies within an NMSE, by bisection on the logarithm."""
    if not family.together:
        return None
    fine, coarse = family.span
    found = None
    for _ in range(_HALVINGS):
        middle = math.sqrt(fine * coarse)
        plan = preset(fill(family.together, middle)).plan(manifest)
        frames, decoded = encode_frames(manifest, plan, update.arrays, None)
        arrays = zip(manifest.specs, decoded, strict=True)
        values = {s.name: v.dense().reshape(s.shape) for s, v in arrays}
        if nmse(update.arrays, values) <= most:
            fine, found = middle, float(sum(len(frame.body) for frame in frames))
        else:
            coarse = middle
    return found


def synthetic(tensors: int, settings: int, seed: int) -> Points:
    """Return points of tensors of 10 to 500,000 elements with energies far apart.

    Each setting has some bits an element, its error falls by a factor of four with each bit, and
    both are somewhat off, so that not all points are on the hull.
    """
    rng = np.random.default_rng(seed)
    sizes = np.exp(rng.uniform(2.3, 13.1, tensors)).astype(np.int64)
    energies = np.exp(rng.normal(0, 2, tensors)) * sizes.astype(np.float64)
    bits = np.sort(rng.uniform(0.01, 8, (tensors, settings)), axis=1)
    errors = energies[:, None] * 4.0**-bits * np.exp(rng.normal(0, 0.2, bits.shape))
    return Points(
        tuple(f"tensor{i}" for i in range(tensors)),
        tuple(f"setting{j}" for j in range(settings)),
        np.ceil(bits * sizes[:, None] / 8),
        errors,
        energies,
        sizes,
    )


def costs(tensors: int, settings: int, seed: int, repeat: int) -> list[Cost]:
    """Return the time of each allocator, the mean over budgets of the best of ``repeat`` runs.

    ``ratio``: what it ends with over what lambda search ends with, the geometric mean: errors for
    a budget of bytes, bytes for one of errors.
    """
    points = synthetic(tensors, settings, seed)
    low, high = float(points.bytes[:, 0].sum()), float(points.bytes[:, -1].sum())
    goals = [low + share * (high - low) for share in SHARES]
    searched = [lambda_search(points, target_bytes=goal) for goal in goals]
    errors = [total(points.errors, choice) for choice in searched]
    sizes = [total(points.bytes, choice) for choice in searched]
    work: dict[tuple[str, str], Callable[[int], Choice]] = {
        ("lambda", "bytes"): lambda i: lambda_search(points, target_bytes=goals[i]),
        ("lambda", "error"): lambda i: lambda_search(points, max_error=errors[i]),
        ("dp", "bytes"): lambda i: dynamic_program(points, target_bytes=goals[i], error="squared"),
        ("dp", "error"): lambda i: dynamic_program(points, max_error=errors[i], error="squared"),
    }
    out = []
    for (allocator, budget), run in work.items():
        taken, ratios = [], []
        for i in range(len(SHARES)):
            choice = run(i)  # compiles the kernels, too
            taken.append(seconds(lambda i=i, run=run: run(i), repeat))  # type: ignore[misc]
            over = (
                total(points.errors, choice) / errors[i]
                if budget == "bytes"
                else total(points.bytes, choice) / sizes[i]
            )
            ratios.append(np.log(over))
        mean = float(np.exp(np.mean(ratios)))
        out.append(Cost(tensors, settings, allocator, budget, 1e3 * float(np.mean(taken)), mean))
    return out


def main() -> None:
    arguments = _arguments()
    console = Console(width=190)
    console.print(f"seed {arguments.seed}")
    timed = [each for size in SIZES for each in costs(*size, arguments.seed, arguments.repeat)]
    console.print(_cost_table(timed))
    rows: list[Row] = []
    if arguments.folder is not None:
        names = [name.strip() for name in arguments.families.split(",")]
        if unknown := sorted(set(names) - FAMILIES.keys()):
            raise SystemExit(f"unknown family {unknown[0]}; known: {', '.join(FAMILIES)}")
        for name in names:
            updates = read_updates(arguments.folder, previous=False)
            own = [compare(update, name, arguments.seed) for update in updates]
            console.print(_table(name, own))
            rows += own
    if arguments.csv is not None:
        with arguments.csv.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, [field.name for field in fields(Row)])
            writer.writeheader()
            writer.writerows(asdict(row) for row in rows)


def _table(name: str, rows: Sequence[Row]) -> Table:
    family = FAMILIES[name]
    title = f"{name}: bytes over those of {family.uniform} for all, and NMSE"
    table = Table(title=title, title_justify="left", box=SIMPLE)
    table.add_column("update", no_wrap=True)
    for column in (
        "uniform", "NMSE", "dp, norms", "NMSE", "lambda, norms", "NMSE",
        "dp, squares", "NMSE", "lambda, squares", "NMSE",
    ):  # fmt: skip
        table.add_column(column, justify="right", no_wrap=True)
    if family.together:
        table.add_column("global", justify="right", no_wrap=True)
    kinds = ("dp_norm", "lambda_norm", "dp_squared", "lambda_squared")
    for row in rows:
        figures = asdict(row)
        cells = [f"{row.uniform_bytes:,.0f}", f"{row.uniform_nmse:.3g}"]
        for kind in kinds:
            ratio = figures[f"{kind}_bytes"] / row.uniform_bytes
            cells += [f"{ratio:.3f}", f"{figures[f'{kind}_nmse']:.3g}"]
        if row.together_bytes is not None:
            cells.append(f"{row.together_bytes / row.uniform_bytes:.3f}")
        table.add_row(row.update, *cells)
    table.add_section()
    cells = ["", ""]
    for kind in kinds:
        for what in ("bytes", "nmse"):
            both = [(asdict(row)[f"{kind}_{what}"], asdict(row)[f"uniform_{what}"]) for row in rows]
            mean = float(np.exp(np.mean([np.log(own / same) for own, same in both])))
            cells.append(f"{mean:.3f}" if what == "bytes" else f"x {mean:.3f}")
    joint = [r.together_bytes / r.uniform_bytes for r in rows if r.together_bytes is not None]
    if joint:
        cells.append(f"{float(np.exp(np.mean(np.log(joint)))):.3f}")
    table.add_row("geometric mean", *cells)
    return table


def _cost_table(rows: Sequence[Cost]) -> Table:
    title = "Processor time to allocate; what comes out, over what lambda search comes to"
    table = Table(title=title, title_justify="left", box=SIMPLE)
    for column in ("tensors", "settings", "allocator", "budget of", "ms", "error or bytes"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            str(row.tensors),
            str(row.settings),
            row.allocator,
            row.budget,
            f"{row.milliseconds:.1f}",
            f"{row.ratio:.4f}",
        )
    return table


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=textwrap.dedent(
            """\
            Times the allocators on made-up points. With a folder of updates (.npz files with one
            array per tensor) also compares them with one setting for all tensors, on the families
            of L-GreCo (Markov et al., MLSys 2024): bits of QSGD, densities of top-k, ranks of
            PowerSGD from half to twice the uniform one.

            Allocators take the fewest bytes within the error of the uniform setting, once as the
            paper has it, the sum of norms ||x - x^|| over tensors, and once the sum of their
            squares. "dp" is the paper's dynamic program with 10,000 buckets, "lambda" this
            project's search. "global" has no plan: one threshold for all tensors, at the NMSE of
            the uniform setting. Bytes are those of bodies, NMSE is that of the whole update.
            """
        ),
    )
    parser.add_argument("folder", type=Path, nargs="?", help="with the updates")
    parser.add_argument(
        "--families", default=",".join(FAMILIES), help=f"some of {', '.join(FAMILIES)}"
    )
    parser.add_argument("--seed", type=int, default=0, help="of stochastic codecs and points")
    parser.add_argument("--repeat", type=int, default=3, help="runs to take the best of")
    parser.add_argument("--csv", type=Path, help="also write the figures of families there")
    return parser.parse_args()


if __name__ == "__main__":
    main()
