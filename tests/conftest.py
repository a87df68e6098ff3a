"""One thread for each test process: networks here are too small to share out.

On a machine with something else to do, threads that wait for each other at every layer take minutes
where one takes seconds.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
