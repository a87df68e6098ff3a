"""Kernels load numba late, and do without a cache where none can be written."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from flowerpress.compression.kernels import jit as module


def double(x: int) -> int:
    return 2 * x


def test_importing_coders_does_not_import_numba() -> None:
    code = (
        "import sys, flowerpress.compression.coders.registry, flowerpress.compression.positions;"
        "sys.exit(any(name in sys.modules for name in ('numba', 'llvmlite', 'torch', 'flwr')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_a_cache_folder_kernels_still_compile(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import numba

    real = numba.njit

    def njit(*args: Any, cache: bool = False, **kwargs: Any) -> Callable[..., Any]:
        if cache:
            raise RuntimeError("cannot cache function 'double': no locator available")
        compiled: Callable[..., Any] = real(*args, **kwargs)
        return compiled

    monkeypatch.setattr(numba, "njit", njit)
    monkeypatch.setattr(module, "_told", False)
    with caplog.at_level(logging.WARNING):
        assert module.jit(double)(21) == 42
        assert module.jit(double)(4) == 8
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "NUMBA_CACHE_DIR" in caplog.text
