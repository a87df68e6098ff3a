"""What can go wrong in an engine, as opposed to in a client or in a message."""

from __future__ import annotations

from flowerpress.compression.errors import FlowerpressError

__all__ = ["EngineError"]


class EngineError(FlowerpressError):
    """A simulation engine cannot go on: a process died, or Flower's own run failed."""
