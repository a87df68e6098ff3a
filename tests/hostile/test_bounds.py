"""Kernels that are compiled with checks of every index are given the same attacks.

A compiled kernel that reads or writes past the end of an array need not crash, so the other tests
may not notice. This one compiles everything again, with checks, in a process and a folder of its
own; minutes, so it is left out of ``make test``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# The probe must be found out, or the rest proves nothing.
SCRIPT = """
import numpy as np
from numba import njit

@njit
def beyond(array, at):
    return array[at]

try:
    beyond(np.zeros(3), 3)
except IndexError:
    print("indices are checked")

import sys
from tests.hostile.mutate import main
sys.argv[1:] = ["--count", "100000", "--seed", "20"]
main()
"""


@pytest.mark.slow
def test_no_kernel_leaves_its_arrays(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, "NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "indices are checked" in done.stdout
    assert "100,000 mutants" in done.stdout
