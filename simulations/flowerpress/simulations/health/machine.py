"""Checks of this machine: versions, compiled kernels, caches, data folders, disk."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from flowerpress.simulations.health.check import FREE_BYTES, INSTALL, Check, Status, tried

__all__ = ["checks"]


def checks(*, quick: bool = False) -> Iterator[Check]:
    """Run the checks one after the other; ``quick`` leaves out those that take seconds."""
    yield _python()
    yield from _packages()
    yield _extra("ray", "ray", "the ray engine")
    yield _extra("matplotlib", "matplotlib", "pictures and reports")
    yield _extra("scikit-learn", "sklearn", "the embedded data set, digits")
    yield from _data()
    yield _disk()
    yield from tried("kernel cache", _kernel_cache)
    if not quick:
        yield from tried("codecs", _kernels)
        yield from tried("cores", _threads)


def _python() -> Check:
    return Check(Status.OK, "Python", ".".join(map(str, sys.version_info[:3])))


def _packages() -> Iterator[Check]:
    from packaging.requirements import Requirement

    try:
        wanted_here = requires("flowerpress") or []
    except PackageNotFoundError:
        yield Check(Status.FAILED, "flowerpress", f"on the path, but not installed; {INSTALL}")
        return
    for line in wanted_here:
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            yield Check(Status.FAILED, requirement.name, f"missing; {INSTALL}")
            continue
        if requirement.specifier.contains(found, prereleases=True):
            yield Check(Status.OK, requirement.name, found)
        else:
            wanted = str(requirement.specifier)
            yield Check(Status.FAILED, requirement.name, f"{found}, needs {wanted}; {INSTALL}")


def _extra(name: str, module: str, purpose: str) -> Check:
    if importlib.util.find_spec(module) is None:
        return Check(Status.NOTE, name, f"not installed; for {purpose}: {INSTALL}")
    try:
        return Check(Status.OK, name, version(name))
    except PackageNotFoundError:
        return Check(Status.OK, name, "found, without a version")


def _data() -> Iterator[Check]:
    from flowerpress.simulations.tasks.folders import VARIABLE

    root = os.environ.get(VARIABLE)
    if not root:
        finding = f"${VARIABLE} is not set; digits needs none, other tasks take --data FOLDER"
        yield Check(Status.NOTE, "data folder", finding)
        return
    if not Path(root).is_dir():
        yield Check(Status.FAILED, "data folder", f"${VARIABLE} names no folder: {root}")
        return
    found = [name for name in ("mnist", "cifar10", "shakespeare") if (Path(root) / name).is_dir()]
    yield Check(Status.OK, "data folder", f"{root} ({', '.join(found) or 'none of the tasks'})")


def _disk() -> Check:
    free = shutil.disk_usage(tempfile.gettempdir()).free
    finding = f"{free / FREE_BYTES:.1f} GiB free for temporary files"
    if free < FREE_BYTES:
        return Check(Status.NOTE, "disk", f"{finding}; lossless aggregation spools models there")
    return Check(Status.OK, "disk", finding)


def _kernel_cache() -> Check:
    from flowerpress.compression import kernels

    folder = Path(
        os.environ.get("NUMBA_CACHE_DIR") or Path(kernels.__file__).parent / "__pycache__"
    )
    existing = next(p for p in [folder, *folder.parents] if p.exists())
    if os.access(existing, os.W_OK):
        return Check(Status.OK, "kernel cache", f"{folder} is writable")
    return Check(
        Status.NOTE,
        "kernel cache",
        f"{folder} is not writable: kernels are compiled anew in each process; "
        "set NUMBA_CACHE_DIR to a folder that is",
    )


def _kernels() -> Check:
    import numpy as np

    from flowerpress.compression import Manifest, apply_frames, encode_frames, preset

    x = {"w": np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)}
    manifest = Manifest.of(x)
    started = time.perf_counter()
    for codec in ("stc", "int8"):
        frames, _ = encode_frames(manifest, preset(codec).plan(manifest), x, None)
        decoded = apply_frames(manifest, {}, frames, change=False)["w"]
        if not np.isfinite(decoded).all():
            return Check(Status.FAILED, "codecs", f"{codec} decodes to NaN; reinstall numba")
    return Check(Status.OK, "codecs", f"a round trip works ({time.perf_counter() - started:.1f} s)")


def _threads() -> Check:
    import torch

    cores = os.cpu_count() or 1
    return Check(
        Status.OK,
        "cores",
        f"{cores}; torch would use {torch.get_num_threads()}, clients use one each",
    )
