"""Entropy coders side by side: size against the entropy, and speed in both directions.

python benchmarks/coders.py
python benchmarks/coders.py --symbols 1000000 --repeat 5
python benchmarks/coders.py --positions
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import textwrap
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, get_args

import numpy as np
import zstandard
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import nnc
from flowerpress.compression.coders.registry import REGISTRY
from flowerpress.compression.entropy import entropy, subset_bits
from flowerpress.compression.positions import PositionMode, decode_positions, encode_positions
from flowerpress.compression.wire import Reader

T = TypeVar("T")
ALPHABET = 128
SCALES = (0.3, 1.0, 4.0)
DENSITIES = (0.001, 0.01, 0.05, 0.2)


def main() -> None:
    parser = argparse.ArgumentParser(
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=textwrap.dedent(
            """\
            Codes quantized Laplacian noise, the usual shape of a model update, with every coder.

            Three scales stand for coarse, middling and fine quantization: about 1, 2.5 and 4.5
            bits a symbol. "over" is how far a coder stays above the order-0 entropy, the least
            that any coder can reach that looks at symbols one by one. Speeds are the best of
            --repeat runs, in millions of symbols per second of processor time of one thread. The
            first run compiles the kernels and is not counted.

            zstd -1 is there as the general-purpose peer. Two more are measured if they are
            installed: constriction, the entropy coding library (pip install constriction), and
            the adaptive arithmetic coder of NNCodec (pip install --no-deps nncodec).
            """
        ),
        epilog="Only compare figures from one machine: numbers move by half between processors.",
    )
    parser.add_argument("--symbols", type=int, default=10_000_000, help="how many (default 10 M)")
    parser.add_argument(
        "--repeat", type=int, default=3, help="runs to take the best of (default 3)"
    )
    parser.add_argument(
        "--positions",
        action="store_true",
        help="measure sorted positions instead, --symbols being the size of the tensor: bits a "
        "position against log2 of the number of subsets, speed as float32 MB/s of that tensor",
    )
    args = parser.parse_args()
    if args.symbols < 1 or args.repeat < 1:
        parser.error("--symbols and --repeat need to be at least 1")
    if args.positions:
        positions(args.symbols, args.repeat)
    else:
        symbols(args.symbols, args.repeat)


def timed(call: Callable[[], T], repeat: int) -> tuple[T, float]:
    """Return the result and the processor seconds of the best run; a first one is not counted."""
    result = call()
    best = float("inf")
    for _ in range(repeat):
        start = time.thread_time()
        result = call()
        best = min(best, max(1e-9, time.thread_time() - start))
    return result, best


def symbols(count: int, repeat: int) -> None:
    rng = np.random.default_rng(0)
    for scale in SCALES:
        drawn = np.rint(rng.laplace(0, scale, count)) + ALPHABET // 2
        values = np.clip(drawn, 0, ALPHABET - 1).astype(np.uint8)
        # Golomb codes want small numbers to be frequent: give them 0, -1, 1, -2, 2, ...
        signed = values.astype(np.int16) - ALPHABET // 2
        folded = np.where(signed < 0, -2 * signed - 1, 2 * signed).astype(np.uint8)
        h = entropy(values)
        print(f"\nLaplacian, scale {scale}: {h:.3f} bits a symbol, {count} symbols")
        print(f"{'coder':22}{'bits/symbol':>12}{'over':>8}{'encode':>9}{'decode':>9}  Msym/s")
        for coder in REGISTRY.values():
            data = folded if coder.name == "golomb" else values
            alphabet = 2 * ALPHABET if coder.name == "golomb" else ALPHABET
            body, encode = timed(partial(coder.encode, data, alphabet), repeat)
            again, decode = timed(partial(coder.decode, body, count, alphabet), repeat)
            assert np.array_equal(again, data), coder.name
            row(coder.name, 8 * len(body) / count, h, count / encode, count / decode)
        peers(values, h, repeat)
    if importlib.util.find_spec("constriction") is None:
        print("\nWithout constriction, which is not installed: pip install constriction")
    if not nnc.available():
        print(f"\nWithout NNCodec. {nnc.MISSING}")


def row(name: str, bits: float, h: float, encode: float, decode: float) -> None:
    over = f"{100 * (bits / h - 1):+.1f}%" if h else "-"
    print(f"{name:22}{bits:12.3f}{over:>8}{encode / 1e6:9.0f}{decode / 1e6:9.0f}")


def peers(values: NDArray[np.uint8], h: float, repeat: int) -> None:
    count = values.size
    fast, data = zstandard.ZstdCompressor(level=1), values.tobytes()
    body, encode = timed(lambda: fast.compress(data), repeat)
    _, decode = timed(lambda: zstandard.ZstdDecompressor().decompress(body), repeat)
    row("(zstd -1)", 8 * len(body) / count, h, count / encode, count / decode)
    if importlib.util.find_spec("constriction") is not None:
        constriction_ans(values, h, repeat)
    if nnc.available():
        nncodec_cabac(values, h, repeat)


def constriction_ans(values: NDArray[np.uint8], h: float, repeat: int) -> None:
    count = values.size
    constriction: Any = __import__("constriction")
    share = np.bincount(values, minlength=ALPHABET) / count
    model = constriction.stream.model.Categorical(share.astype(np.float32), perfect=False)
    wide = values.astype(np.int32)

    def ans() -> Any:
        coder = constriction.stream.stack.AnsCoder()
        coder.encode_reverse(wide, model)
        return coder.get_compressed()

    words, encode = timed(ans, repeat)
    stack = constriction.stream.stack.AnsCoder
    _, decode = timed(lambda: stack(words).decode(model, count), repeat)
    row("(constriction ANS)", 32 * len(words) / count, h, count / encode, count / decode)


def nncodec_cabac(values: NDArray[np.uint8], h: float, repeat: int) -> None:
    """Integers are not quantized: what is left of NNCodec is its context coding."""
    signed = {"symbols": values.astype(np.int32) - ALPHABET // 2}
    settings = nnc.Settings(qp=0)
    stream, encode = timed(lambda: nnc.encode(signed, settings), repeat)
    _, decode = timed(lambda: nnc.decode(stream), repeat)
    count = values.size
    row("(NNCodec CABAC)", 8 * len(stream) / count, h, count / encode, count / decode)


def read(body: bytes, count: int, size: int) -> NDArray[np.int64]:
    return decode_positions(Reader(body, "positions"), count, size)


def positions(size: int, repeat: int) -> None:
    rng = np.random.default_rng(0)
    print(f"positions among {size} elements; speed in MB/s of that tensor as float32")
    print(f"{'density':>8}  {'mode':10}{'bits/position':>14}{'over':>9}{'encode':>9}{'decode':>9}")
    for density in DENSITIES:
        where = np.flatnonzero(rng.random(size) < density)
        bound = subset_bits(where.size, size)
        for mode in get_args(PositionMode):
            body, encode = timed(partial(encode_positions, where, size, mode), repeat)
            again, decode = timed(partial(read, body, where.size, size), repeat)
            assert np.array_equal(again, where), mode
            bits, megabytes = 8 * len(body), size * 4 / 1e6
            over = 100 * (bits / bound - 1) if bound else 0.0
            print(
                f"{density:8}  {mode:10}{bits / max(1, where.size):14.3f}{over:+8.2f}%"
                f"{megabytes / encode:9.0f}{megabytes / decode:9.0f}"
            )


if __name__ == "__main__":
    main()
