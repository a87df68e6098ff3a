"""One codec on one update: size, error, distance to the entropy, speed, memory."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from benchmarks.apart import SEED, Apart, encoded
from benchmarks.entropies import ideal_bits
from benchmarks.files import Update, nmse
from flowerpress.compression import Frame, Manifest, decode_frames
from flowerpress.protos.envelope import Kind, pack
from flowerpress.protos.envelope import Update as Envelope

__all__ = ["KNOB", "Row", "fill", "measure", "seconds", "split_codecs", "try_codec"]

KNOB = "*"
"""Stands in a codec's name for the parameter that is turned: ``topk(density=*)``."""


@dataclass(frozen=True)
class Row:
    """One codec on one update.

    ``bytes``: the whole message. ``entropy_bits``: per parameter, side information included; None
    where it says nothing. Speeds in millions of parameters per second of processor time. Memory
    at its peak beside the input, in bytes per byte of float32; None where it was not measured.
    """

    update: str
    codec: str
    bytes: int
    bits_per_param: float
    entropy_bits: float | None
    over_entropy: float | None
    nmse: float
    encode_mparams: float | None = None
    decode_mparams: float | None = None
    encode_memory: float | None = None
    decode_memory: float | None = None


def split_codecs(text: str) -> list[str]:
    """Return the codecs of a list with commas, those within parentheses left alone."""
    return [codec.strip() for codec in re.split(r",(?![^(]*\))", text)]


def fill(codec: str, value: float) -> str:
    """Return ``codec`` with ``value`` in place of ``KNOB``."""
    return codec.replace(KNOB, f"{value:.6g}")


def try_codec(update: Update, codec: str, apart: Apart) -> tuple[float, float]:
    """Return the bits per parameter and the NMSE, the latter as another process decodes it."""
    manifest = Manifest.of(update.arrays)
    frames = encoded(codec, manifest, update.arrays, update.references)
    blob = _pack(manifest, frames)
    decoded = apart.decode(blob, manifest, update.references)
    return 8 * len(blob) / manifest.size, nmse(update.arrays, decoded)


def measure(update: Update, codec: str, apart: Apart, repeat: int, memory: bool) -> Row:
    """Return everything about ``codec`` on ``update``; the best of ``repeat`` runs each."""
    arrays, references = update.arrays, update.references
    manifest = Manifest.of(arrays)
    frames = encoded(codec, manifest, arrays, references)  # compiles the kernels, too
    encode = seconds(lambda: encoded(codec, manifest, arrays, references), repeat)
    decode = seconds(lambda: list(decode_frames(manifest, frames, references)), repeat)
    blob = _pack(manifest, frames)
    ideal = _sum(
        ideal_bits(
            frame, manifest.specs[frame.tensor], arrays[manifest.specs[frame.tensor].name], SEED
        )
        for frame in frames
    )
    peaks = apart.peaks(codec, arrays, references) if memory else None
    return Row(
        update=update.name,
        codec=codec,
        bytes=len(blob),
        bits_per_param=8 * len(blob) / manifest.size,
        entropy_bits=None if ideal is None else ideal / manifest.size,
        over_entropy=None if ideal is None else 8 * len(blob) / ideal - 1,
        nmse=nmse(arrays, apart.decode(blob, manifest, references)),
        encode_mparams=manifest.size / encode / 1e6,
        decode_mparams=manifest.size / decode / 1e6,
        encode_memory=None if peaks is None else peaks[0],
        decode_memory=None if peaks is None else peaks[1],
    )


def seconds(work: Callable[[], object], repeat: int) -> float:
    """Return the processor time of the best of ``repeat`` runs."""
    best = float("inf")
    for _ in range(repeat):
        started = time.process_time()
        work()
        best = min(best, time.process_time() - started)
    return max(best, 1e-9)


def _pack(manifest: Manifest, frames: list[Frame]) -> bytes:
    return pack(Envelope(Kind.DELTA, 1, 1, 1, 1, manifest.digest, frames, base=bytes(16)))


def _sum(values: Iterable[float | None]) -> float | None:
    total = 0.0
    for value in values:
        if value is None:
            return None
        total += value
    return total
