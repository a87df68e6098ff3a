"""What a measurement was made with."""

from __future__ import annotations

import platform
from importlib.metadata import version

__all__ = ["versions"]


def versions() -> dict[str, str]:
    """Return the versions of Python and of what computes here, by name."""
    names = ("flowerpress", "numpy", "torch")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}
