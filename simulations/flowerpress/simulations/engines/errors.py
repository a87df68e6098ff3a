"""What can go wrong in an engine, as opposed to in a client or in a message."""

from __future__ import annotations

from pathlib import Path

from flowerpress.compression.errors import FlowerpressError

__all__ = ["EngineError", "StoppedError"]


class EngineError(FlowerpressError):
    """A simulation engine cannot go on: a process died, or Flower's own run failed."""


class StoppedError(EngineError):
    """The user stopped a run (Ctrl-C). ``folder`` has the rounds that were finished by then."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        super().__init__(f"stopped; the rounds until then are in {folder / 'rounds.jsonl'}")
