"""How many connections a process can have open, and still write what it has to."""

from __future__ import annotations

import resource

__all__ = ["affordable"]

_EACH = 3
"""Descriptors of a connection: the front's two, and gRPC's own."""

_OTHERS = 100
"""What a ServerApp opens besides: Flower's channel, spools, checkpoints, records."""


def affordable(wanted: int) -> int:
    """Return how many of ``wanted`` connections the limit on open files allows, at least one.

    The limit that may be raised without privileges (1,024 on most systems) is raised as far as it
    is needed. Strangers who open connections could otherwise keep a checkpoint from being written.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    needed = _EACH * wanted + _OTHERS
    if soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(1, min(wanted, (soft - _OTHERS) // _EACH))
