"""Checks: each says what it found and, where something is missing, what to do.

``machine`` looks at this machine, ``deployment`` at the way to a server and at what a device or a
server has for it.
"""

from __future__ import annotations

from flowerpress.simulations.health.check import Check, Status

__all__ = ["Check", "Status"]
