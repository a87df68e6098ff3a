"""Small bodies that ask for much: ``python -m tests.hostile.bombs`` decodes thousands of them.

Each claims, at some place of a frame that is otherwise as an honest sender makes it, a huge count,
rank, length, number of lanes or size of what follows. The tensor is large enough (1 MiB) that an
allocation for each of its elements shows, and small enough that one for what a bomb claims would
not pass.
"""

from __future__ import annotations

import gc
import random
import resource
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np

from flowerpress.compression import (
    CODECS,
    Codec,
    ConfigError,
    EncodeError,
    Manifest,
    Plan,
    TensorSpec,
    WireError,
    encode_frames,
    preset,
    read_recipe,
    recipe,
)
from flowerpress.compression.pipeline import Pipeline
from flowerpress.compression.spelling import parse_call
from flowerpress.compression.stages import Exact
from tests.hostile.mutate import EXTREMES, decode, varint
from tests.hostile.specimens import GROUPS, Specimen, grouped, spellings

__all__ = ["Bomb", "bombs", "crafted", "honest"]

SPEC = TensorSpec("large", (256, 1024))
_MANIFEST = Manifest((SPEC,))
_DEEPEST = 48  # bytes from a body's start, or from its end, at which claims are put
_EACH = 24  # bombs a specimen
_SPELLINGS = 9  # of a preset: as many as there are coders, and the plain one

Bomb = tuple[Codec, bytes, Specimen]


@cache
def honest() -> tuple[Specimen, ...]:
    """Return one frame of the large tensor for each codec and first bytes of a body."""
    x = np.random.default_rng(5).laplace(0, 0.1, SPEC.shape).astype(np.float32)
    found: dict[tuple[bytes, bytes], Specimen] = {}
    kept: Counter[str] = Counter()
    for text in spellings():
        name = parse_call(text)[0]
        kept[name] += 1
        if kept[name] > _SPELLINGS:  # some take a second
            continue
        rng = np.random.default_rng(6)
        try:
            frames, _ = encode_frames(_MANIFEST, preset(text).plan(_MANIFEST), {"large": x}, rng)
        except (ConfigError, EncodeError):  # a budget may be out of reach
            continue
        codec, body = frames[0].codec, bytes(frames[0].body)
        found.setdefault((recipe(codec), body[:2]), Specimen(text, SPEC, codec, body, None))
    for texts in GROUPS:
        plan = Plan((grouped(SPEC, texts),))
        rng = np.random.default_rng(6)
        frame = encode_frames(_MANIFEST, plan, {"large": x}, rng)[0][0]
        one = Specimen(texts[0], SPEC, frame.codec, bytes(frame.body), None)
        found[recipe(frame.codec), one.body[:2]] = one
    return tuple(found.values())


def bombs(seed: int = 0) -> Iterator[Bomb]:
    """Yield claims in the bodies and recipes of every codec; the same seed, the same bombs."""
    rng = random.Random(seed)
    claims = [varint(value) for value in EXTREMES] + [b"\xff" * 8, struct.pack("<Q", 1 << 40)]
    for one in honest():
        places = [*range(min(_DEEPEST, len(one.body) + 1))]  # a body may be empty
        places += range(max(len(one.body) - _DEEPEST, 0), len(one.body))
        for _ in range(_EACH):
            at, claim = rng.choice(places), rng.choice(claims)
            replaced = rng.randrange(3)
            tail = one.body[at + replaced :] if rng.random() < 0.5 else b""
            yield one.codec, one.body[:at] + claim + tail, one
        for claim in claims:
            yield one.codec, claim, one
            yield one.codec, one.body[:1] + claim, one
        name = recipe(one.codec)
        for at in range(1, len(name)):
            try:
                codec = read_recipe(memoryview(name[:at] + rng.choice(claims)), CODECS)
            except WireError:
                continue
            yield codec, one.body, one


def crafted() -> Iterator[tuple[str, Bomb]]:
    """Yield bombs that nobody finds by chance, with a name for each."""
    due = SPEC.nbytes
    one = Specimen("crafted", SPEC, Pipeline([Exact()], "zstd"), b"", None)
    for declared in (due, due - 1, due + 1, 1 << 30, 1 << 40, (1 << 64) - 1):
        for repeats in (1, 2, due >> 17, (due >> 17) + 1, 8192):
            # A frame that declares its size, then blocks of 128 KiB in four bytes each.
            head = b"\xe0" + struct.pack("<Q", declared)
            block = (128 << 10) << 3 | 1 << 1
            blocks = struct.pack("<I", block)[:3] + b"\0"
            last = struct.pack("<I", block | 1)[:3] + b"\0"
            body = head + blocks * (repeats - 1) + last
            yield f"zstd, {declared} bytes in {repeats} blocks", (one.codec, body, one)
    for window in (0x00, 0x50, 0xA8, 0xFF):
        head = b"\xc0" + bytes([window]) + struct.pack("<Q", due)
        yield f"zstd, window {window:#x}", (one.codec, head + b"\x01\0\0" * 4, one)
        yield (
            f"zstd without a size, window {window:#x}",
            (one.codec, bytes([0, window, 1, 0, 0]), one),
        )
    for tag in range(10):
        for stages in (b"\x04\x08", b"\x05" * 7 + b"\x08", b"\x05" * 254 + b"\x08"):
            name = bytes([1, len(stages)]) + stages + bytes([tag])
            try:
                codec = read_recipe(memoryview(name), CODECS)
            except WireError:
                continue
            yield f"{len(stages)} stages, coder {tag}", (codec, b"\x81" * 64, one)


def main() -> None:
    """Decode every bomb and print how many there were and how much memory the process took."""
    everything = list(bombs(1))[::4]  # the tests decode others
    everything += [bomb for _, bomb in crafted()]
    for one in honest():  # compiles the kernels, and takes what an honest frame takes
        decode(one.codec, one.body, one)
    gc.collect()
    with suppress(OSError):  # forgets the peak of what came before, where Linux lets it
        Path("/proc/self/clear_refs").write_text("5")
    before = _peak()
    refused = sum(bool(decode(*bomb)) for bomb in everything)
    print(len(everything), refused, _peak() - before)


def _peak() -> int:
    """Return the most bytes that this process has had in memory."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


if __name__ == "__main__":
    main()
