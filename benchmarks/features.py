"""The coder of features at a cut: size against the ideal, and speed in both directions.

python benchmarks/features.py
python benchmarks/features.py --channels 12 --positions 64 --repeat 9
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.coders import timed
from flowerpress.compression.coders.rans import Rans
from flowerpress.compression.features import TableCodec, Tables, decode, encode

BATCHES = (1, 8, 64, 512, 2048)
SPREADS = (0.05, 0.15, 0.5, 2.0, 20.0)


def main() -> None:
    parser = argparse.ArgumentParser(
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=textwrap.dedent(
            """\
            Codes quantized Laplacian noise, channel by channel with tables of its own distribution.

            Five widths, from channels that are nearly all zeros to ones of 400 levels; within a
            width, channels differ by a factor of up to ten. "over" is the bytes beyond what the
            tables promise, minus the sum of log2 of the frequencies; "allowed" is 8 bytes and half
            a percent. "one table" is the size that the coder of updates reaches, which sends one
            table for all channels within every body. Speeds are the best of --repeat runs, in
            millions of symbols per second of processor time of one thread: of the coder alone, and
            from and to float32 features. The first run compiles the kernels and is not counted.
            """
        ),
        epilog="Only compare figures from one machine: numbers move by half between processors.",
    )
    parser.add_argument("--channels", type=int, default=24, help="of the features (default 24)")
    parser.add_argument(
        "--positions", type=int, default=49, help="values a channel of a sample (default 49)"
    )
    parser.add_argument(
        "--repeat", type=int, default=5, help="runs to take the best of (default 5)"
    )
    args = parser.parse_args()
    if min(args.channels, args.positions, args.repeat) < 1:
        parser.error("--channels, --positions and --repeat need to be at least 1")
    print(f"{args.channels} channels, {args.positions} values a channel of a sample")
    print(
        f"{'samples':>7}{'width':>7}{'bits/symbol':>12}{'bytes':>9}{'over':>7}{'allowed':>9}"
        f"{'one table':>11}{'encode':>9}{'decode':>8}{'features':>10}{'back':>6}  Msym/s"
    )
    for batch in BATCHES:
        for spread in SPREADS:
            row(batch, spread, args.channels, args.positions, args.repeat)


def row(batch: int, spread: float, channels: int, positions: int, repeat: int) -> None:
    rng = np.random.default_rng(0)
    widths = spread * np.geomspace(0.3, 3.0, channels)[:, None]

    def drawn(samples: int) -> NDArray[np.int32]:
        return np.rint(rng.laplace(0, widths, (channels, samples * positions))).astype(np.int32)

    zero, one = np.zeros(channels, np.float32), np.ones(channels, np.float32)
    tables = Tables.from_symbols(1, drawn(2000), zero, one)
    symbols = drawn(batch)
    count = symbols.shape[1]
    rows = symbols.reshape(channels, batch, positions).swapaxes(0, 1).astype(np.float32)
    codec = TableCodec(tables)

    def speed(call: Callable[[], object]) -> float:
        return symbols.size / timed(call, repeat)[1] / 1e6

    body = encode(symbols, tables)
    assert np.array_equal(decode(body, tables, count), symbols)
    ideal = tables.ideal_bits(symbols) / 8
    low = int(symbols.min())
    peer = Rans().encode((symbols - low).astype(np.uint32), int(symbols.max()) - low + 2)
    print(
        f"{batch:7}{spread:7}{8 * ideal / symbols.size:12.3f}{len(body):9}"
        f"{len(body) - ideal:7.1f}{8 + 0.005 * ideal:9.1f}{len(peer):11}"
        f"{speed(partial(encode, symbols, tables)):9.0f}"
        f"{speed(partial(decode, body, tables, count)):8.0f}"
        f"{speed(partial(codec.encode, rows)):10.0f}"
        f"{speed(partial(codec.decode, body, rows.shape)):6.0f}"
    )


if __name__ == "__main__":
    main()
