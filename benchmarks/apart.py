"""Another process: decodes what this one encoded, and tells what coding takes in memory.

It is started anew (spawned), so it shares nothing with the encoder but the bytes, the manifest
and the tensors that both ends hold.
"""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression import (
    Context,
    Frame,
    Manifest,
    WireError,
    apply_frames,
    decode_frames,
    preset,
)
from flowerpress.protos.envelope import unpack

__all__ = ["SEED", "Apart", "encoded"]

SEED = 0

Arrays = Mapping[str, NDArray[Any]]
Peaks = tuple[float, float] | None


class Apart:
    """One other process; a context manager, which ends it."""

    def __init__(self) -> None:
        # Read by glibc when the process starts: all but small memory goes back to the system once
        # it is free, so that the peak of one call is not hidden in what an earlier one left.
        for name in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"):
            os.environ.setdefault(name, "65536")
        self._pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))

    def __enter__(self) -> Apart:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown()

    def decode(self, blob: bytes, manifest: Manifest, references: Arrays) -> Arrays:
        """Return the tensors in an envelope. Raises RuntimeError where its decoder refuses it."""
        return self._pool.submit(_decode, blob, manifest, dict(references)).result()

    def peaks(self, codec: str, arrays: Arrays, references: Arrays) -> Peaks:
        """Return the most memory that encoding and decoding take beside what they are given.

        In bytes per byte of float32 parameters, results included: physical pages, as Linux counts
        them. None on other systems. Both run once before, which compiles the kernels.
        """
        return self._pool.submit(_peaks, codec, dict(arrays), dict(references)).result()


def encoded(codec: str, manifest: Manifest, arrays: Arrays, references: Arrays) -> list[Frame]:
    """Return the frames of ``arrays``; stochastic codecs start from ``SEED``."""
    rng = np.random.default_rng(SEED)
    contexts = [Context(rng, references.get(spec.name)) for spec in manifest.specs]
    tensors = [arrays[spec.name] for spec in manifest.specs]
    coded = preset(codec).plan(manifest).encode(manifest, tensors, contexts)
    return [Frame(index, each.codec, each.body) for index, each in enumerate(coded)]


def _decode(blob: bytes, manifest: Manifest, references: Arrays) -> Arrays:
    try:
        frames = unpack(blob, manifest).frames
        return apply_frames(manifest, {}, frames, change=False, references=references)
    except WireError as error:
        # Between processes as text: an error with fields of its own may not survive pickling.
        raise RuntimeError(f"{type(error).__name__}: {error}") from None


def _peaks(codec: str, arrays: Arrays, references: Arrays) -> Peaks:
    if not Path("/proc/self/clear_refs").exists():
        return None
    manifest = Manifest.of(arrays)
    frames = encoded(codec, manifest, arrays, references)
    plain = 4 * manifest.size

    def decode() -> None:
        for _ in decode_frames(manifest, frames, references):
            pass  # a server adds it up and lets it go

    decode()
    return (
        _peak(lambda: encoded(codec, manifest, arrays, references)) / plain,
        _peak(decode) / plain,
    )


def _peak(work: Callable[[], object]) -> int:
    """Return by how many bytes the process grows while ``work`` runs, at most."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # sets the high-water mark back
    before = _status("VmRSS")
    kept = work()
    peak = _status("VmHWM") - before
    del kept
    return max(0, peak)


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(field + ":")).split()[1])
