"""Mutated frames, decoded as a receiver decodes them: ``python -m tests.hostile.mutate``.

    python -m tests.hostile.mutate --count 1000000 --seed 1   # another seed, another million

Bodies and recipes are damaged without any checksum in the way. Every one must be refused with a
``WireError`` or decode to a sound tensor, in bounded time and memory. The first that does neither
ends the command with what is needed to see it again.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
import tracemalloc
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from flowerpress.compression import (
    CODECS,
    Codec,
    Frame,
    Sparse,
    TensorSpec,
    WireError,
    Writer,
    decode_frames,
    read_recipe,
    recipe,
)
from tests.hostile.specimens import Specimen, specimens

__all__ = [
    "EXTREMES",
    "attack",
    "body_of",
    "damaged",
    "decode",
    "most_memory",
    "mutated",
    "traced",
    "varint",
]

EXTREMES = (0, 1, 127, 128, 255, 2**16, 2**31 - 1, 2**31, 2**32, 2**32 + 1, 2**53, 2**63 - 1)
# No integer at all: longer than any, or at its end all zeros.
_MALFORMED = (b"\xff" * 10, b"\x80" * 9 + b"\x02", b"\x81\x00", b"\x80")
_FLOATS = (np.nan, np.inf, -np.inf, -1.0, 0.0, -0.0, 1e-45, 3.4e38, -3.4e38)
SLOWEST = 5.0  # seconds a body; a hundred times what the slowest takes, for busy machines
# Decoding may take six times the tensor, and this for tables and for Python's own.
OVERHEAD = 1 << 20
TIMES = 6
_TRACED = 16  # of so many bodies one is measured: tracing triples the time


def most_memory(spec: TensorSpec) -> int:
    """Return the bytes that decoding a tensor may take at most, by docs/codecs.md."""
    return TIMES * spec.size * max(4, spec.storage.itemsize) + OVERHEAD


def varint(value: int) -> bytes:
    """Return an integer as it stands in bodies."""
    out = Writer()
    out.varint(value)
    return out.getvalue()


def mutated(body: bytes, others: Sequence[Specimen], rng: random.Random) -> bytes:
    """Return ``body`` with one to three changes; splices take their parts from ``others``."""
    data = bytearray(body)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(9):
            case 0 if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            case 1 if at < len(data):
                data[at] = rng.randrange(256)
            case 2:
                del data[at:]
            case 3:
                data += rng.randbytes(rng.randint(1, 16))
            case 4:
                other = rng.choice(others).body
                start = rng.randrange(len(other) + 1)
                end = None if rng.random() < 0.5 else at + rng.randint(0, 40)
                data[at:end] = other[start : start + rng.randint(0, 200)]
            case 5:
                whole = rng.random() < 0.9
                extreme = varint(rng.choice(EXTREMES)) if whole else rng.choice(_MALFORMED)
                data[at : at + rng.randint(0, 2)] = extreme
            case 6:
                data[at : at + 4] = np.float32(rng.choice(_FLOATS)).tobytes()
            case 7:
                del data[at : at + rng.randint(1, 8)]
            case _:
                part = data[at : at + rng.randint(1, 20)]
                data[at:at] = part
    return bytes(data)


def damaged(body: bytes, rng: random.Random) -> bytes:
    """Return ``body`` with one to three changes, or none that shows."""
    data = bytearray(body)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(6):
            case 0 if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            case 1 if at < len(data):
                data[at] = rng.randrange(256)
            case 2:
                del data[at:]
            case 3:
                data += rng.randbytes(rng.randint(1, 16))
            case 4:
                data[at:at] = varint(rng.choice(EXTREMES))
            case _:
                data[at : at + rng.randint(1, 8)] = rng.randbytes(rng.randint(0, 8))
    return bytes(data)


def body_of(body: bytes, others: Sequence[Specimen], rng: random.Random) -> bytes:
    """Return a mutant that differs from ``body``."""
    while True:
        out = mutated(body, others, rng)
        if out != body:
            return out


@contextmanager
def traced() -> Iterator[Callable[[], int]]:
    """Measure memory: the function that this yields returns the peak so far, in bytes."""
    tracemalloc.start()
    try:
        yield lambda: tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def decode(codec: Codec, body: bytes, one: Specimen) -> str:
    """Decode ``body`` as the frame of ``one``'s tensor; return "" or the class of the refusal.

    Raises:
        AssertionError: what was decoded is not a sound tensor, or took too long.
        Exception: anything but a ``WireError`` is a fault of the decoder.
    """
    references = {} if one.reference is None else {one.spec.name: one.reference}
    began = time.thread_time()
    try:
        ((_, decoded),) = decode_frames(one.manifest, [Frame(0, codec, body)], references)
    except WireError as error:
        return type(error).__name__ if error.field else "nothing was named"
    finally:
        taken = time.thread_time() - began
        assert taken < SLOWEST, f"{taken} seconds"
    if isinstance(decoded, Sparse):
        where = decoded.positions
        assert where.dtype == np.int64
        assert decoded.values.dtype == np.float32
        assert decoded.size == one.spec.size
        assert where.shape == decoded.values.shape
        assert not where.size or (where[0] >= 0 and where[-1] < one.spec.size)
        assert (np.diff(where) > 0).all()
    values = decoded.dense()
    assert values.shape == (one.spec.size,)
    assert values.dtype in (np.float32, one.spec.storage)
    assert np.isfinite(values).all()
    return ""


def attack(
    count: int, seed: int, chosen: Sequence[Specimen], told: Callable[[int], None] | None = None
) -> Counter[str]:
    """Decode ``count`` mutants of the frames ``chosen`` and count how they ended.

    Args:
        count: mutants; the frames take turns.
        seed: the same one gives the same mutants.
        chosen: frames to mutate; spliced with all others.
        told: called with the number done, now and then.

    Raises:
        AssertionError: a mutant crashed the decoder, was slow, took memory or decoded unsoundly.
    """
    rng = random.Random(seed)
    everything = specimens()
    ends: Counter[str] = Counter()
    for turn in range(count):
        one = chosen[turn % len(chosen)]
        codec, name, body = one.codec, recipe(one.codec), one.body
        fate = rng.randrange(16)
        try:
            if fate == 0:
                # A recipe that is damaged or another frame's.
                other = recipe(rng.choice(everything).codec)
                name = other if rng.random() < 0.5 else body_of(name, everything, rng)
                codec = read_recipe(memoryview(name), CODECS)
            elif fate == 1:
                body = rng.choice(everything).body
            if fate != 1:
                body = body_of(body, everything, rng)
            if turn % _TRACED:
                end = decode(codec, body, one)
            else:
                with traced() as peak:
                    end = decode(codec, body, one)
                    most = most_memory(one.spec)
                    assert peak() <= most, f"{peak()} bytes of memory, at most {most} are due"
        except WireError as error:
            end = type(error).__name__
        except Exception as error:
            raise AssertionError(
                f"{one.text}, tensor {one.spec}, turn {turn} of seed {seed}: "
                f"{type(error).__name__}: {error}\nrecipe {name.hex()}\nbody {body.hex()}"
                f"\nreference: {'none' if one.reference is None else 'the specimen’s'}"
            ) from error
        ends[end or "sound"] += 1
        if told is not None and turn % 1000 == 0:
            told(turn)
    return ends


def main() -> None:
    """Run as many mutants as asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="presets whose spelling begins like this")
    asked = parser.parse_args()
    warnings.simplefilter("error", RuntimeWarning)
    chosen = [one for one in specimens() if one.text.startswith(asked.only)]
    began = time.time()

    def told(done: int) -> None:
        print(f"\r{done:,} of {asked.count:,}, {time.time() - began:.0f} s", end="", flush=True)

    ends = attack(asked.count, asked.seed, chosen, told if sys.stderr.isatty() else None)
    print(f"\r{asked.count:,} mutants of {len(chosen)} frames in {time.time() - began:.0f} s")
    for end, times in ends.most_common():
        print(f"{times:10,} {end}")


if __name__ == "__main__":
    main()
